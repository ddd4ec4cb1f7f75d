"""Environments that exist nowhere else or need glue. Each module is imported only when one of its ids is asked for."""
