"""The pictures of plot.py, a file for each paper: graesser (with aggregate, flops), vischer (with goggles) and dimofte.
They share runs (folders as tables), estimates (statistics and their texts) and panels (what is drawn alike)."""
