#!/usr/bin/env bash
# Every experiment of the papers, by figure, as loops over tasks, methods, sparsities and seeds.
#
#   ./benchmark.sh list                                      the experiments and how many runs each has
#   ./benchmark.sh NAME [smoke|small|paper] [--FLAG ...]     start what is not finished yet (default: small)
#   LAUNCH=print ./benchmark.sh NAME paper                   only print the commands
#   LAUNCH=slurm SBATCH_ARGS="--time=12:00:00 --mem=8G" ./benchmark.sh NAME paper
#
#   smoke  a minute or two: does everything run?             small  one task, short, 3 seeds, a part of the grid
#   paper  the paper's tasks, budgets, grid and seeds        --FLAG ...  is added to every command
#
# Run folders go to $OUT/runs/ (OUT: this folder), logs to $OUT/runs/logs/NAME-SCALE/, and runs/NAME-SCALE.txt lists
# the folders of the finished runs for plot.py. JOBS runs at once (the number of cores), one torch thread each, with
# PYTHON (python). Ctrl-C stops the runs; the same command goes on from their checkpoints and skips what is finished.
# The same run in two experiments is one folder: do not start two experiments at once that share runs.
#
# Memory: a run of SAC takes 1 GB, on Ant 2, on Humanoid up to 6. In the lottery-ticket experiments (imp_...) all seeds
# and conditions train together, as one run: 1 GB, but 30 MB for each Bullet environment (25 GB at paper scale,
# behavioural cloning 13), 0.8 GB for each seed and condition of an Atari game (17 GB), and 0.5 GB for each of DQN on
# MazeGrid with entangled inputs (10 GB). Such a run has a checkpoint after each pruning round, so a Slurm job needs time
# for a whole round; DQN has one at each evaluation.
#
# To add an experiment, write one function below. The comment on its first line makes it one, and names the picture.

# ---- Scales ----------------------------------------------------------------------------------------------------------

set_scale() {
    rounds="" coarse_rounds="" steps="" bullet_steps="" maze_steps="" maze_dqn="" minatar_steps="" updates=""
    repetitions="" prune_episodes=""
    case $scale in
        smoke)
            envs="Pendulum-v1" seeds="1"
            budget="--total-timesteps 800 --learning-starts 400 --eval-interval 400 --eval-episodes 2 --snr-interval 400"
            classic="CartPole-v1" bullet="HopperBulletEnv-v0" classic_round=01 bullet_round=01 rounds=" --rounds 1"
            coarse_rounds=$rounds
            steps=" --total-timesteps 1280 --eval-interval 1280" updates=" --updates 40 --transitions 400"
            bullet_steps="$steps --conditions ticket"
            learn=" --num-envs 16 --batch-size 64 --learning-starts 128 --hidden-sizes 16 --eval-episodes 2"
            maze_steps=$steps maze_dqn="$learn --conditions ticket" minatar_steps="$steps$maze_dqn" maze_round=01
            games="Breakout" sizes="16,16"
            repetitions=" --repetitions 1 --prune-fractions 0.6 --max-episodes 20 --test-episodes 5"
            prune_episodes=" --prune-episodes 5"
            ;;
        small)
            envs="HalfCheetah-v5" seeds="1 2 3"
            budget="--total-timesteps 200000"
            classic="CartPole-v1" bullet="HopperBulletEnv-v0" rounds=" --rounds 15"
            coarse_rounds=" --rounds 5" bullet_round=03 # each for three of the paper's, as 0.8^3 = 0.512
            bullet_steps=" --total-timesteps 300000 --conditions ticket --prune-fraction 0.488"
            maze_steps=" --total-timesteps 500000 --eval-interval 25000" maze_round=15 # at 13 most pixels are alive
            maze_dqn=" --exploration-fraction 0.4 --matmul-precision medium"
            minatar_steps=" --total-timesteps 500000 --conditions ticket random_reinit --prune-fraction 0.488"
            minatar_steps="$minatar_steps --matmul-precision medium"
            games="Breakout SpaceInvaders" sizes="128,64"
            repetitions=" --repetitions 3"
            ;;
        paper)
            envs="HalfCheetah-v5 Hopper-v5 Walker2d-v5 Ant-v5 Humanoid-v5" seeds="1 2 3 4 5 6 7 8 9 10"
            budget="--total-timesteps 1000000"
            classic="CartPole-v1 Acrobot-v1"
            bullet="HalfCheetahBulletEnv-v0 HopperBulletEnv-v0 Walker2DBulletEnv-v0 AntBulletEnv-v0"
            games="Asterix Breakout Freeway SpaceInvaders" sizes="128,128 256,256" # of DQN on Cart-Pole
            ;;
    esac
}

# The pruning round whose ticket says which inputs imp_retrain and imp_retrain_bullet leave to dense agents: one in
# which inputs are gone and the ticket is still as good as the dense agent. The pictures of imp_inputs and
# imp_inputs_bullet show it. With scaled initial weights on Cart-Pole two seeds had angle and velocity of the pole left
# in rounds 4 to 6, and from round 7 on one of them had lost the velocity, too. On Acrobot it is round 13, the last one in
# which all of ten seeds were good: two to four inputs were left. On Bullet the paper says "approximately 10%" of the
# weights, which is round 10; for MazeGrid it says "moderate sparsity": in rounds of 1.5M steps the pixels that are always
# 0 were gone at 3.5% to 6.9% of the weights, and in those of the small scale later.
classic_round=05 acrobot_round=13 bullet_round=10 maze_round=13

# ---- SAC (Graesser et al. 2022) --------------------------------------------------------------------------------------
# A flag that changes nothing, such as --sparsity with dense or --sparsity-distribution with small, still gives another
# run folder. So it is left out, and the experiments share these runs. "small" is the dense network with as many
# parameters as the sparse ones have.

sac() {  # ENV SEED METHOD [--FLAG ...]
    echo "algos/sac_rigl.py --env-id $1 --seed $2 --method ${*:3} $budget --threads 1"
}

sac_halfcheetah() { # our table (plot.py curves): all methods at 90% on HalfCheetah, RigL at two update intervals
    envs="HalfCheetah-v5"
    for seed in $seeds; do
        for env in $envs; do
            sac "$env" "$seed" dense
            for method in rigl static set prune small; do
                sac "$env" "$seed" "$method" --sparsity 0.9
            done
            sac "$env" "$seed" rigl --sparsity 0.9 --update-interval 200
        done
    done
}

sac_iqm() { # figures 1, 15 (plot.py iqm): IQM over tasks at each sparsity
    methods="small prune static set rigl"
    case $scale in
        smoke) methods="small rigl" sparsities="0.9" ;;
        small) sparsities="0.9 0.95" ;;
        paper) sparsities="0.5 0.9 0.95 0.99" ;;
    esac
    for seed in $seeds; do
        for env in $envs; do
            sac "$env" "$seed" dense
            for sparsity in $sparsities; do
                case $sparsity$env in 0.99Ant* | 0.99Humanoid*) continue ;; esac # the paper has three tasks at 99%
                for method in $methods; do
                    sac "$env" "$seed" "$method" --sparsity "$sparsity"
                done
            done
        done
    done
}

sac_scaling() { # figures 2, 9 (plot.py sparsity): final return against the number of parameters
    # The paper says 50% to 95% and marks 80%.
    methods="small prune static set rigl"
    case $scale in
        smoke) methods="prune static set" sparsities="0.9" ;;
        small) sparsities="0.5 0.8 0.9 0.95" ;;
        paper) sparsities="0.5 0.7 0.8 0.9 0.95" ;;
    esac
    for seed in $seeds; do
        for env in $envs; do
            sac "$env" "$seed" dense
            for sparsity in $sparsities; do
                for method in $methods; do
                    sac "$env" "$seed" "$method" --sparsity "$sparsity"
                done
            done
        done
    done
}

sac_scaling_uniform() { # figure 12 (plot.py sparsity): as sac_scaling, with the same sparsity in every layer
    methods="prune static set rigl"
    case $scale in
        smoke) methods="static rigl" sparsities="0.9" ;;
        small) sparsities="0.5 0.8 0.9 0.95" ;;
        paper) sparsities="0.5 0.7 0.8 0.9 0.95" ;;
    esac
    for seed in $seeds; do
        for env in $envs; do
            sac "$env" "$seed" dense
            for sparsity in $sparsities; do
                sac "$env" "$seed" small --sparsity "$sparsity"
                for method in $methods; do
                    sac "$env" "$seed" "$method" --sparsity "$sparsity" --sparsity-distribution uniform
                done
            done
        done
    done
}

sac_actor_share() { # figure 3 (plot.py flag --flag actor_share): share of the weights that the actor gets
    # Budgets of 100%, 20% and 10% of the dense weights. The default split, 0.337, is the run without --actor-share.
    # At 100% no other split is feasible for sparse networks, as none has more weights than the dense one; at 20% and
    # 10% all are, in all five tasks.
    shares="0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9" sparsities="0.8 0.9"
    case $scale in
        smoke) shares="0.5" sparsities="0.8" ;;
        small) shares="0.1 0.5 0.9" ;;
    esac
    for seed in $seeds; do
        for env in $envs; do
            sac "$env" "$seed" dense
            for share in $shares; do
                sac "$env" "$seed" small --sparsity 0 --actor-share "$share"
            done
            for sparsity in $sparsities; do
                for method in small rigl; do
                    sac "$env" "$seed" "$method" --sparsity "$sparsity"
                    for share in $shares; do
                        sac "$env" "$seed" "$method" --sparsity "$sparsity" --actor-share "$share"
                    done
                done
            done
        done
    done
}

# Figures 4 and 13 do not name their task. The paper searched its hyper-parameters on Walker2d (appendix A.3).

sac_distribution() { # figure 4, left (plot.py flag --flag sparsity_distribution): uniform or ERK, at 80%
    methods="prune static set rigl"
    case $scale in
        smoke) methods="prune" ;;
        paper) envs="Walker2d-v5" ;;
    esac
    for seed in $seeds; do
        for env in $envs; do
            for method in $methods; do
                for distribution in uniform erk; do
                    sac "$env" "$seed" "$method" --sparsity 0.8 --sparsity-distribution "$distribution"
                done
            done
        done
    done
}

sac_weight_decay() { # figure 4, centre (plot.py flag --flag weight_decay): weight decay, at 80%
    methods="prune static set rigl" decays="0 1e-6 1e-4 1e-3"
    case $scale in
        smoke) methods="rigl" decays="0 1e-3" ;;
        small) methods="prune rigl" ;;
        paper) envs="Walker2d-v5" ;;
    esac
    for seed in $seeds; do
        for env in $envs; do
            for decay in $decays; do
                sac "$env" "$seed" dense --weight-decay "$decay"
                for method in $methods; do
                    sac "$env" "$seed" "$method" --sparsity 0.8 --weight-decay "$decay"
                done
            done
        done
    done
}

sac_init() { # figure 4, right (plot.py flag --flag sparse_init): initial weights scaled by active fans or not, at 80%
    methods="static set rigl"
    case $scale in
        smoke) methods="static" ;;
        small) methods="static rigl" ;;
        paper) envs="Walker2d-v5" ;;
    esac
    for seed in $seeds; do
        for env in $envs; do
            for method in $methods; do
                for distribution in uniform erk; do
                    for init in --sparse-init --no-sparse-init; do
                        sac "$env" "$seed" "$method" --sparsity 0.8 --sparsity-distribution "$distribution" "$init"
                    done
                done
            done
        done
    done
}

sac_snr() { # figure 5 (plot.py curves --column snr_critic): signal-to-noise ratio of the gradients; also snr_actor
    case $scale in
        smoke) sparsities="0.9" ;;
        small) sparsities="0.9 0.95 0.99" ;;
        paper) sparsities="0.5 0.8 0.9 0.95 0.99" ;;
    esac
    for seed in $seeds; do
        for env in $envs; do
            sac "$env" "$seed" dense
            for sparsity in $sparsities; do
                sac "$env" "$seed" rigl --sparsity "$sparsity"
            done
        done
    done
}

sac_drop_fraction() { # figure 13, left (plot.py flag --flag drop_fraction): connections replaced at first, at 80%
    fractions="0 0.1 0.2 0.3 0.5"
    case $scale in
        smoke) fractions="0 0.3" ;;
        small) fractions="0 0.1 0.3 0.5" ;;
        paper) envs="Walker2d-v5" ;;
    esac
    for seed in $seeds; do
        for env in $envs; do
            for method in set rigl; do
                for fraction in $fractions; do
                    sac "$env" "$seed" "$method" --sparsity 0.8 --drop-fraction "$fraction"
                done
            done
        done
    done
}

sac_update_interval() { # figure 13, centre (plot.py flag --flag update_interval): steps between mask updates, at 80%
    intervals="100 250 500 1000 5000"
    case $scale in
        smoke) intervals="100 250" ;;
        small) intervals="100 250 1000 5000" ;;
        paper) envs="Walker2d-v5" ;;
    esac
    for seed in $seeds; do
        for env in $envs; do
            for method in prune set rigl; do
                for interval in $intervals; do
                    sac "$env" "$seed" "$method" --sparsity 0.8 --update-interval "$interval"
                done
            done
        done
    done
}

sac_batch_size() { # figure 13, right (plot.py flag --flag batch_size): transitions per update, at 80%
    # The paper does not print its grid.
    methods="prune static set rigl" sizes="32 64 128 256 512"
    case $scale in
        smoke) methods="rigl" sizes="32 64" ;;
        small) methods="static rigl" sizes="64 128 256" ;;
        paper) envs="Walker2d-v5" ;;
    esac
    for seed in $seeds; do
        for env in $envs; do
            for size in $sizes; do
                sac "$env" "$seed" dense --batch-size "$size"
                for method in $methods; do
                    sac "$env" "$seed" "$method" --sparsity 0.8 --batch-size "$size"
                done
            done
        done
    done
}

sac_output_layer() { # figure 14 (plot.py sparsity): ERK and uniform, all layers pruned or the last one dense
    # Two panels in the paper: add --where dense_output_layer=false, or =true, to draw one of them.
    envs="HalfCheetah-v5" methods="prune static set rigl"
    case $scale in
        smoke) envs="Pendulum-v1" methods="static" sparsities="0.9" ;;
        small) methods="static rigl" sparsities="0.9 0.95" ;;
        paper) sparsities="0.5 0.7 0.8 0.9 0.95" ;;
    esac
    for seed in $seeds; do
        for env in $envs; do
            sac "$env" "$seed" dense
            for method in $methods; do
                for sparsity in $sparsities; do
                    for distribution in erk uniform; do
                        for output in --no-dense-output-layer --dense-output-layer; do
                            sac "$env" "$seed" "$method" --sparsity "$sparsity" \
                                --sparsity-distribution "$distribution" "$output"
                        done
                    done
                done
            done
        done
    done
}

# ---- Lottery tickets (Vischer et al. 2022) ---------------------------------------------------------------------------
# All seeds and conditions of a command train together, in one run folder. Budgets of a round, networks and 20 rounds
# are the scripts' defaults for each task, from tables 2 to 9 of the paper, so paper scale has no flags for them. Seeds
# are 10, and 5 on Atari; the paper has 15 on Cart-Pole and Acrobot in figures 2, 3 and 11.

ppo() { # ENV [--FLAG ...]
    local budget=$steps rounds=$rounds
    case $1 in *Bullet*) budget=$bullet_steps rounds=$coarse_rounds ;; MazeGrid*) budget=$maze_steps ;; esac
    echo "algos/ppo_imp.py --env-id $* --seeds $seeds$rounds$budget"
}

bc() { # ENV [--FLAG ...]; nothing where algos/experts/ has no teacher (its README.md says how to make one)
    if [ -f "$root/algos/experts/$1.pt" ]; then
        echo "algos/bc_distill.py --env-id $* --seeds $seeds$rounds$updates"
    else
        echo "left out: behavioural cloning of $1, as there is no teacher algos/experts/$1.pt" >&2
    fi
}

dqn() { # ENV [--FLAG ...]
    local budget=$steps rounds=$rounds
    case $1 in MazeGrid*) budget=$maze_steps$maze_dqn ;; MinAtar*) budget=$minatar_steps rounds=$coarse_rounds ;; esac
    echo "algos/dqn_imp.py --env-id $* --seeds $seeds$rounds$budget"
}

# Where another experiment reads the tickets of a run, its folder has a name that is known beforehand. With a --FLAG
# that changes results it needs another OUT: a run folder takes no other run, and says so.
run_dir() { # ENV WHAT [SCRIPT]
    local env=${1/\//-}
    echo "runs/${env}__${3:-ppo_imp}__$2-$scale"
}

ppo_default() { # ENV: the run with nothing but defaults, which many figures share
    case $1 in
        *Bullet*) ppo "$1" --run-dir "$(run_dir "$1" default)" ;;
        *) ppo "$1" ;;
    esac
}

ppo_retrained() { # ENV WHAT ROUND: dense agents that see only the inputs of the first seed's ticket
    rounds=" --rounds 0" coarse_rounds=" --rounds 0" ppo "$1" --input-mask "$(run_dir "$1" "$2")/tickets/round$3_ticket_seed1.pt"
}

imp_rl_bc() { # figures 1, 2, 3 (plot.py tickets): four conditions, PPO against behavioural cloning
    # Figure 1, right, is the mean over the Bullet tasks, normalised, which plot.py does not draw. Cloning needs an
    # expert in algos/experts/; for one in another place there is bc_distill.py --teacher FILE.
    case $scale in paper) classic="$classic $bullet" ;; esac
    for env in $classic; do
        ppo_default "$env"
        bc "$env"
    done
}

imp_on_policy() { # figure 4 (plot.py tickets): four conditions, PPO on Bullet and Atari, at small scale on Acrobot
    # The text of the paper does not name its games; these are the first three of Graesser et al. 2022.
    case $scale in
        smoke | small) bullet="Acrobot-v1" games="" ;;
        paper) games="MsPacman Pong Qbert" ;;
    esac
    for env in $bullet; do
        ppo_default "$env"
    done
    seeds="1 2 3 4 5"
    for game in $games; do
        ppo_default "ALE/$game-v5"
    done
}

imp_inputs_bullet() { # figure 7 (plot.py inputs): which inputs Bullet agents lose; imp_retrain_bullet comes after it
    for env in $bullet; do
        ppo_default "$env"
    done
}

imp_retrain_bullet() { # figure 7 (plot.py tickets): dense Bullet agents with all inputs and with the surviving ones
    # Start it when imp_inputs_bullet is finished, with the same --FLAGs: it reads tickets of those runs.
    # A run that does not find its ticket fails and says so; start it again later.
    for env in $bullet; do
        ppo_default "$env"
        ppo_retrained "$env" default $bullet_round
    done
}

imp_inputs() { # figure 8 (plot.py inputs --where env_id=CartPole-v1): which inputs are lost, by initial weights
    # For the paper's other task --where env_id=Acrobot-v1. imp_retrain comes after it.
    for env in $classic; do
        ppo_default "$env"
        ppo "$env" --input-init-scale 0.1 --conditions ticket --run-dir "$(run_dir "$env" small-input-init)"
        ppo "$env" --init xavier --conditions ticket
    done
}

imp_retrain() { # figure 8, bottom (plot.py tickets): dense agents with all inputs and with the surviving ones
    # Start it when imp_inputs is finished, with the same --FLAGs: it reads tickets of its runs with --input-init-scale.
    # A run that does not find its ticket fails and says so; start it again later.
    for env in $classic; do
        ppo_default "$env"
        case $env in
            Acrobot*) ppo_retrained "$env" small-input-init $acrobot_round ;;
            *) ppo_retrained "$env" small-input-init $classic_round ;;
        esac
    done
}

imp_sizes() { # figure 11 (plot.py tickets): sizes of the networks, PPO and behavioural cloning
    # The sizes of the students are those of tables 2 and 4. Those of the agents are not in the paper. What stands first
    # is the default. The paper's figure has numbers of weights on its axis, which are the column remaining here.
    for env in $classic; do
        case $env in
            CartPole*) agents="128,128 256,256" students="256,256" ;;
            Acrobot*) agents="256,128 512,256" students="256,128 512,256" ;;
        esac
        ppo_default "$env"
        for size in $agents; do
            ppo "$env" --hidden-sizes "${size/,/ }" --conditions ticket permuted_permuted
        done
        bc "$env"
        for size in $students; do
            bc "$env" --hidden-sizes "${size/,/ }" --conditions ticket permuted_permuted
        done
    done
}

# In the paper's figures 4 to 6 and 9 to 14 DQN has 5 seeds. Its default runs on MazeGrid and MinAtar have folders with a
# name, as other experiments read their tickets.

five_seeds() {
    case $scale in paper) seeds="1 2 3 4 5" ;; esac
}

dqn_default() { # ENV [--network cnn]
    local what=default
    if [ $# -gt 1 ]; then what=cnn; fi
    dqn "$@" --run-dir "$(run_dir "$1" $what dqn_imp)"
}

imp_off_policy() { # figure 4, MazeGrid (plot.py tickets): four conditions, DQN
    five_seeds
    dqn_default MazeGrid-v0
}

imp_goggles() { # figure 5 (plot.py goggles): what DQN's tickets see of MazeGrid; imp_retrain_goggles comes after it
    five_seeds
    dqn_default MazeGrid-v0
}

imp_retrain_goggles() { # figure 5, bottom (plot.py tickets): dense agents with all pixels and with the surviving ones
    # Start it when imp_goggles is finished, with the same --FLAGs: it reads a ticket of that run.
    five_seeds
    dqn_default MazeGrid-v0
    ticket="$(run_dir MazeGrid-v0 default dqn_imp)/tickets/round${maze_round}_ticket_seed1.pt"
    rounds=" --rounds 0" dqn MazeGrid-v0 --input-mask "$ticket"
}

imp_goggles_minatar() { # figure 6 (plot.py goggles --where env_id=MinAtar/Breakout-v1): what DQN's tickets see
    # For the other games --where env_id=MinAtar/SpaceInvaders-v1, and at paper scale Freeway and Asterix.
    five_seeds
    for game in $games; do
        dqn_default "MinAtar/$game-v1"
    done
}

imp_minatar_bc() { # figure 9 (plot.py tickets): four conditions, cloning of DQN's values, MLP and CNN
    # Start it when imp_minatar is finished, with the same --FLAGs: the first seed's dense agents are the teachers.
    five_seeds
    for game in $games; do
        for what in default cnn; do
            teacher="$(run_dir "MinAtar/$game-v1" $what dqn_imp)/tickets/round00_dense_seed1.pt"
            echo "algos/bc_distill.py --env-id MinAtar/$game-v1 --teacher $teacher --seeds $seeds$rounds$updates"
        done
    done
}

imp_minatar() { # figure 10 (plot.py tickets): four conditions, DQN, MLP and CNN; imp_minatar_bc comes after it
    five_seeds
    for game in $games; do
        dqn_default "MinAtar/$game-v1"
        dqn_default "MinAtar/$game-v1" --network cnn
    done
}

imp_swapped() { # figure 12 (plot.py tickets): PPO on MazeGrid, and DQN on Cart-Pole with networks of several sizes
    # The sizes are not in the paper. What stands first is the default.
    five_seeds
    ppo MazeGrid-v0
    dqn CartPole-v1
    for size in $sizes; do
        dqn CartPole-v1 --hidden-sizes "${size/,/ }"
    done
}

imp_encodings() { # figure 13 (plot.py tickets): MazeGrid in colours, and with entangled inputs
    five_seeds
    dqn MazeGridRGB-v0
    dqn MazeGridEntangled-v0
}

# The paper's figure 14 has a DQN agent on MazeGrid, which small scale leaves out; PPO agents are their counterparts.

imp_regularisation() { # figure 14, left, centre (plot.py tickets): with and without weight decay, and dropout
    for env in $classic; do
        ppo_default "$env"
        ppo "$env" --weight-decay 0.1
        ppo "$env" --dropout 0.1
    done
    case $scale in
        smoke | paper)
            five_seeds
            dqn_default MazeGrid-v0
            dqn MazeGrid-v0 --weight-decay 0.1
            dqn MazeGrid-v0 --dropout 0.1
            ;;
    esac
}

imp_rewind() { # figure 14, right (plot.py tickets): rewinding to the weights after 2%, 8% and 80% of training
    # In the paper 100,000, 400,000 and 4,000,000 of 5,000,000 steps.
    for env in $classic; do
        case $env in
            CartPole*) moments="1600 6400 64000" ;;
            Acrobot*) moments="10000 40000 400000" ;;
        esac
        case $scale in smoke) moments="1024" ;; esac
        ppo_default "$env"
        for moment in $moments; do
            ppo "$env" --rewind-steps "$moment"
        done
    done
    case $scale in
        smoke) moments="1024" ;;
        small) return ;;
        paper) moments="100000 400000 4000000" ;;
    esac
    five_seeds
    dqn_default MazeGrid-v0
    for moment in $moments; do
        dqn MazeGrid-v0 --rewind-steps "$moment"
    done
}

imp_prune_critic() { # figure 15 (plot.py tickets): prune actor and critic, or the actor alone
    case $scale in small | paper) classic=$bullet ;; esac
    for env in $classic; do
        ppo_default "$env"
        case $env in
            *Bullet*) ppo "$env" --prune actor ;;
            *) ppo "$env" --prune both ;;
        esac
    done
}

# ---- Early-bird tickets (Dimofte 2023) -------------------------------------------------------------------------------
# All repetitions, fractions and pruning episodes of a command train together. At paper scale these are the defaults.

eb() { # EXPERIMENT [--FLAG ...]
    for env in CartPole-v0 Acrobot-v1; do
        echo "algos/dqn_earlybird.py --experiment $1 --env-id $env$repetitions${*:2}"
    done
}

eb_similarity() { # figure 3.3 (plot.py earlybird): how similar masks are over training
    eb similarity
}

eb_retrain() { # figures 3.4, 3.5, 3.6 (plot.py earlybird): pruned early, then trained from the initial weights
    eb retrain "$prune_episodes"
}

eb_finetune() { # figures 3.5, 3.6, 3.7 (plot.py earlybird): pruned early, then trained on
    eb finetune "$prune_episodes"
}

eb_exploit() { # figure 3.8 (plot.py earlybird): EB Exploit, which decides itself when to prune
    eb exploit
}

# ---- From here on nothing needs a change for a new experiment --------------------------------------------------------

fail() {
    echo "error: $1" >&2
    exit 2
}

experiments() { # the first line of each function above that names its picture
    grep '^[a-z0-9_]*() { # .*(plot\.py .*): ' "$root/benchmark.sh"
}

commands() { # of the experiment: a script and its flags each
    set_scale
    "$name"
}

list() {
    local name scale
    printf '%-20s %6s %6s %6s  %s\n' experiment smoke small paper "runs for figure ... (and how to draw it)"
    while read -r line; do
        name=${line%%"()"*}
        printf '%-20s' "$name"
        for scale in smoke small paper; do
            printf ' %6d' "$(commands 2> /dev/null | wc -l)"
        done
        printf '  %s\n' "${line#*# }"
    done < <(experiments)
}

label_of() { # what tells a command from the experiment's others
    local flags=${1%% --total-timesteps*}
    echo "${flags%% --seeds*}"
}

log_of() { # a command's log, named by its label
    local flags
    flags=$(label_of "${1#algos/}")
    flags=${flags//--/}
    echo "$logs/${flags//[ \/]/_}.txt"
}

start() { # a command, in the background; the shell becomes the program, so that signals reach it
    (cd "$OUT" && eval "exec $python $scripts$1$extra") >> "$(log_of "$1")" 2>&1 &
    running[$!]=$1
    if [ -n "$stopped" ]; then kill -TERM $!; fi # Ctrl-C came just before
}

collect() { # book the runs that have ended
    local pid status log result
    for pid in "${!running[@]}"; do
        if jobs -rp | grep -qx "$pid"; then continue; fi
        wait "$pid"
        status=$?
        log=$(log_of "${running[pid]}")
        if [ "$status" -eq 0 ] && tail -n 1 "$log" | grep -q ' is finished; --fresh '; then
            result=skipped # a finished run says so, and nothing else
        elif [ "$status" -eq 0 ]; then
            result=passed
        elif [ -n "$stopped" ] || [ "$status" -eq 130 ] || [ "$status" -eq 143 ]; then
            result=stopped # by Ctrl-C or by kill
        else
            result=failed
            failures="$failures  ${running[pid]}"$'\n'"    $log: $(tail -n 1 "$log")"$'\n'
        fi
        if [ "$status" -eq 0 ]; then # the run's folder, as seen from runs/, from the last of the lines that have it
            sed -n -e 's/ is finished; --fresh .*//p' -e 's/^final score.*(\(.*\))$/\1/p' \
                -e 's/^draw: python plot\.py [a-z]* //p' "$log" |
                tail -n 1 | sed -e 's/^runs\///' -e t -e 's/^[^/]/..\/&/' >> "$folders"
        fi
        results="$results$result"$'\n'
        printf '[%d/%d] %-7s  %s\n' "$(count .)" "$total" "$result" "$(label_of "${running[pid]}")"
        unset "running[pid]"
    done
}

count() { # the results that match
    printf %s "$results" | grep -c "$1"
}

run_here() {
    local stopped="" results="" failures="" total folders=$OUT/runs/$name-$scale.txt
    local -a running
    total=$(commands 2> /dev/null | wc -l)
    : > "$folders"
    trap 'stopped=yes; kill -TERM $(jobs -rp) 2> /dev/null' INT TERM
    while read -r command; do
        while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ] && [ -z "$stopped" ]; do sleep 0.2; done
        collect
        if [ -n "$stopped" ]; then break; fi
        start "$command"
    done < <(commands)
    while [ "${#running[@]}" -gt 0 ]; do
        sleep 0.2
        collect
    done

    printf '\n%-20s %-5s %7s %7s %7s\n' experiment scale passed failed skipped
    printf '%-20s %-5s %7d %7d %7d\n' "$name" "$scale" "$(count passed)" "$(count failed)" "$(count skipped)"
    if [ -n "$failures" ]; then printf 'failed:\n%s' "$failures"; fi
    if [ -n "$stopped" ] || [ "$(count stopped)" -gt 0 ]; then
        echo "stopped with $((total - $(count passed) - $(count failed) - $(count skipped))) runs to go;" \
            "the same command goes on from there"
        exit 130
    fi
    echo "draw: $python ${scripts}plot.py $(experiments | sed -n "s/^$name() .*(plot\.py \(.*\)):.*/\1/p") $(printf %q "$folders")"
    if [ -n "$failures" ]; then exit 1; fi
}

run_on_slurm() {
    local refused=0
    while read -r command; do
        # Five minutes before its time is up a run is told to write its checkpoint. SBATCH_ARGS come later, so they win.
        # shellcheck disable=SC2086 # SBATCH_ARGS are several words
        sbatch --job-name="$name" --cpus-per-task=1 --signal=B:TERM@300 --output="$(log_of "$command")" \
            --open-mode=append $SBATCH_ARGS --wrap="cd $out && exec $python $scripts$command$extra" ||
            refused=$((refused + 1))
    done < <(commands)
    if [ "$refused" -gt 0 ]; then
        echo "$refused runs were not submitted"
        exit 1
    fi
    echo "when they have ended, the same with LAUNCH=local counts what is finished and says how to draw it"
}

root=$(cd "$(dirname "$0")" && pwd)
if [ $# -eq 0 ] || [ "$1" = -h ] || [ "$1" = --help ]; then
    sed -n '2,/^$/s/^# \{0,1\}//p' "$root/benchmark.sh"
    exit 0
fi
name=$1 scale=${2:-small} extra="${*:3}"
extra=${extra:+ $extra}
LAUNCH=${LAUNCH:-local} OUT=${OUT:-$root} PYTHON=${PYTHON:-python} JOBS=${JOBS:-$(getconf _NPROCESSORS_ONLN)}
if [ "$name" = list ]; then
    list
    exit 0
fi
experiments | grep -q "^$name()" || fail "no experiment $name; ./benchmark.sh list names them"
case $scale in smoke | small | paper) ;; *) fail "the scale is smoke, small or paper, not $scale" ;; esac
case $JOBS in *[!0-9]* | 0*) fail "JOBS is how many runs at once, not $JOBS" ;; esac
case $OUT in /*) ;; *) OUT=$PWD/$OUT ;; esac
case $PYTHON in /*) ;; */*) PYTHON=$PWD/$PYTHON ;; esac
python=$(printf %q "$PYTHON") out=$(printf %q "$OUT") scripts=$(printf %q "$root/") # as a shell reads them
if [ "$OUT" = "$root" ]; then scripts=""; fi
logs=$OUT/runs/logs/$name-$scale

case $LAUNCH in
    print) commands | while read -r command; do echo "cd $out && $python $scripts$command$extra"; done ;;
    local | slurm)
        command -v "$PYTHON" > /dev/null || fail "no program $PYTHON: PYTHON names the interpreter"
        [ "$LAUNCH" = local ] || command -v sbatch > /dev/null || fail "LAUNCH=slurm needs sbatch, which is not here"
        mkdir -p "$logs" || fail "cannot write to $OUT"
        if [ "$LAUNCH" = local ]; then run_here; else run_on_slurm; fi
        ;;
    *) fail "LAUNCH is local, slurm or print, not $LAUNCH" ;;
esac
