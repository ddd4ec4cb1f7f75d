#!/usr/bin/env bash
# Every experiment of the papers, by figure.
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
# Memory: a run of SAC takes 1 GB, on Ant 2, on Humanoid up to 6, one of DQN on Atari 8 (small scale 2). In imp_... all
# seeds and conditions train together, as one run: 1 GB, but 30 MB for each Bullet environment (25 GB at paper scale,
# behavioural cloning 13), 0.8 GB for each seed and condition of an Atari game (17 GB), 0.5 GB for each of DQN on
# MazeGrid with entangled inputs (10 GB). Its checkpoints come after a pruning round, so a Slurm job needs time for a
# whole one; those of DQN at each evaluation.
#
# To add an experiment, write a branch of "experiment": the comment on its first line makes it one and names the figure.

# shellcheck disable=SC2046,SC2086 # lists without quotes are on purpose: see grid
grid() { # COMMAND [WORDS ...]: a command for each choice of one word out of each WORDS; the last WORDS change fastest
    # So --seed "1 2" gives two commands, --seeds 1 2 one, and an empty list none. A comma becomes a space:
    # --hidden-sizes "64,64 128,128" is a choice between two pairs.
    local word
    if [ $# -eq 1 ]; then echo "$1"; fi
    for word in ${2-}; do grid "$1 ${word//,/ }" "${@:3}"; done
}

at_scale() { case $scale in smoke) echo "$1" ;; small) echo "$2" ;; paper) echo "$3" ;; esac; } # SMOKE SMALL PAPER

set_scale() {
    rounds="" coarse_rounds="" steps="" bullet_steps="" maze_steps="" maze_dqn="" minatar_dqn="" updates=""
    # The pruning round whose ticket tells imp_retrain... which inputs to leave to dense agents: inputs are gone and it
    # is as good as the dense agent, as the pictures of imp_inputs... show. On Cart-Pole two seeds had the pole's angle
    # and velocity left in rounds 4 to 6; from 7 on one had lost the velocity. On Acrobot it is the last in which all of
    # ten seeds were good: two to four inputs were left. For Bullet the paper says "approximately 10%" of the weights,
    # for MazeGrid "moderate sparsity": in rounds of 1.5M steps the pixels that are always 0 were gone at 3.5% to 6.9%.
    cartpole_round=05 acrobot_round=13 bullet_round=10 maze_round=13 acrobot="" repetitions=""
    case $scale in
    smoke)
        seeds="1" few_seeds="1" envs="Pendulum-v1" tuning_env="Pendulum-v1"
        budget="--total-timesteps 800 --learning-starts 400 --eval-interval 400 --eval-episodes 2 --snr-interval 400"
        mujoco_ppo="Pendulum-v1" ppo_budget="--total-timesteps 512 --num-steps 256 --num-minibatches 4" ppo_levels=0.9
        ppo_budget="$ppo_budget --eval-interval 256 --eval-episodes 2"
        classic_dqn="CartPole-v1" dqn_budget=$budget dqn_levels=0.9
        atari_games="ALE/Pong-v5" atari_seeds="1" atari_levels=0.9
        atari_budget="--total-timesteps 600 --learning-starts 400 --eval-interval 600 --eval-episodes 1 --eval-steps 0"
        atari_budget="$atari_budget --snr-interval 0 --batch-size 8 --max-episode-steps 50"
        bullet="HopperBulletEnv-v0" games="MinAtar/Breakout-v1" cartpole_round=01 bullet_round=01 maze_round=01
        rounds="--rounds 1" coarse_rounds="--rounds 1" updates="--updates 40 --transitions 400"
        steps="--total-timesteps 1280 --eval-interval 1280" bullet_steps="$steps --conditions ticket" maze_steps=$steps
        maze_dqn="--num-envs 16 --batch-size 64 --learning-starts 128 --hidden-sizes 16 --eval-episodes 2"
        maze_dqn="$maze_dqn --conditions ticket" minatar_dqn="$steps $maze_dqn"
        repetitions="--repetitions 1 --prune-fractions 0.6 --max-episodes 20 --test-episodes 5" ;;
    small)
        seeds="1 2 3" few_seeds="1 2 3" envs="HalfCheetah-v5" tuning_env="HalfCheetah-v5"
        budget="--total-timesteps 200000" repetitions="--repetitions 3"
        mujoco_ppo="HalfCheetah-v5" ppo_budget="--total-timesteps 300000" ppo_levels="0.5 0.8 0.9 0.95"
        classic_dqn="CartPole-v1 Acrobot-v1" dqn_budget="--total-timesteps 50000" dqn_levels="0.8 0.9 0.95 0.99"
        atari_games="ALE/Pong-v5" atari_seeds="1 2 3" atari_levels="0.9 0.95"
        atari_budget="--total-timesteps 500000 --buffer-size 200000 --num-envs 4 --matmul-precision medium"
        atari_budget="$atari_budget --eval-interval 50000 --eval-episodes 4 --eval-steps 0 --checkpoint-interval 50000"
        bullet="HopperBulletEnv-v0" games="MinAtar/Breakout-v1 MinAtar/SpaceInvaders-v1"
        rounds="--rounds 15" coarse_rounds="--rounds 5" # each for three of the paper's, as 0.8^3 = 0.512
        bullet_steps="--total-timesteps 300000 --conditions ticket --prune-fraction 0.488" bullet_round=03
        maze_steps="--total-timesteps 500000 --eval-interval 25000" maze_round=15 # at 13 most pixels are alive
        maze_dqn="--exploration-fraction 0.4 --matmul-precision medium"
        minatar_dqn="--total-timesteps 500000 --conditions ticket random_reinit --prune-fraction 0.488"
        minatar_dqn="$minatar_dqn --matmul-precision medium" ;;
    paper)
        seeds="1 2 3 4 5 6 7 8 9 10" few_seeds="1 2 3 4 5" budget="--total-timesteps 1000000"
        envs="HalfCheetah-v5 Hopper-v5 Walker2d-v5 Ant-v5 Humanoid-v5"
        mujoco_ppo=$envs ppo_budget="" ppo_levels="0.5 0.7 0.8 0.9 0.95" dqn_budget=""
        classic_dqn="CartPole-v1 Acrobot-v1 MountainCar-v0" dqn_levels="0.5 0.8 0.9 0.95 0.99"
        atari_games="MsPacman Pong Qbert Assault Asterix BeamRider Boxing Breakout CrazyClimber DemonAttack Enduro"
        atari_games="$atari_games FishingDerby SpaceInvaders Tutankham VideoPinball"
        atari_games=$(printf 'ALE/%s-v5 ' $atari_games) atari_seeds="1 2 3 4 5 6 7 8 9" atari_budget=""
        atari_levels="0.5 0.7 0.8 0.9 0.95 0.99"
        tuning_env="Walker2d-v5" # figures 4 and 13 do not name their task; the paper tuned on it (appendix A.3)
        bullet="HalfCheetahBulletEnv-v0 HopperBulletEnv-v0 Walker2DBulletEnv-v0 AntBulletEnv-v0" acrobot="Acrobot-v1"
        games="MinAtar/Asterix-v1 MinAtar/Breakout-v1 MinAtar/Freeway-v1 MinAtar/SpaceInvaders-v1" ;;
    esac
    classic="CartPole-v1 $acrobot" sparse="prune static set rigl"
}

# ---- The runs of one script ------------------------------------------------------------------------------------------
# SAC (Graesser et al. 2022). A flag that changes nothing, such as --sparsity with dense or --sparsity-distribution with
# small, still gives another run folder. So it is left out, and the experiments share these runs. "small" is the dense
# network with as many parameters as the sparse ones have.
sac() { # "METHOD ..." [--FLAG "VALUE ..." ...]
    grid algos/sac_rigl.py --env-id "$envs" --seed "$seeds" --method "$@" $budget --threads 1
}

# DQN and PPO (the same paper). All seeds of a command train together, in one run folder. The budgets are the scripts'
# defaults at paper scale; the paper has 9 seeds with PPO.
dqn_rigl() { grid algos/dqn_rigl.py --env-id "$classic_dqn" --method "$@" --seeds $seeds $dqn_budget; }
ppo_rigl() { grid algos/ppo_rigl.py --env-id "$mujoco_ppo" --method "$@" --seeds $seeds $ppo_budget; }

# DQN on Atari (the same paper), 9 seeds. Noise needs agents whose folders have names that are known beforehand.
atari() { # nature|impala "METHOD ..." [--FLAG "VALUE ..." ...]
    grid algos/dqn_atari_rigl.py --env-id "$atari_games" --seed "$atari_seeds" --network $1 --method "${@:2}" \
        $atari_budget --threads 1
}
atari_agents() { # COMMAND: for each game, method, sparsity and seed of figure 6, with the name of its folder at the end
    local env agent seed agents
    agents=$(at_scale rigl-0.9 "small-0.9 set-0.9 rigl-0.9" "small-0.5 set-0.5 rigl-0.5 small-0.9 set-0.9 rigl-0.9")
    for env in $atari_games; do
        for agent in dense $agents; do
            for seed in $atari_seeds; do
                "$1" $env ${agent/-/ --sparsity } $seed runs/noise-${scale}__${env#ALE/}__${agent}__$seed
            done
        done
    done
}
train_for_noise() { # ENV METHOD [--sparsity LEVEL] SEED FOLDER
    echo algos/dqn_atari_rigl.py --env-id $1 --seed "${@: -2:1}" --method "${@:2:$# - 3}" $atari_budget --threads 1 \
        --run-dir "${@: -1}"
}
play_with_noise() { # the same
    local levels="0 5 10 15 20 25 30"
    if [ $scale = smoke ]; then levels="0 10"; fi
    echo algos/dqn_atari_rigl.py --evaluate "${@: -1}/checkpoint.pt" --observation-noise $levels --threads 1
}

# Lottery tickets (Vischer et al. 2022). All seeds and conditions of a command train together, in one run folder.
# Budgets of a round, networks and 20 rounds are the scripts' defaults for each task, from tables 2 to 9 of the paper,
# so paper scale has no flags for them. Games and DQN have 5 seeds, as in figures 4 to 6 and 9 to 14. The other tasks
# have 10; the paper has 15 on Cart-Pole and Acrobot in figures 2, 3 and 11.
tickets() { # SCRIPT "ENV ..." [--FLAG "VALUE ..." ...]; ENV in a VALUE is the task
    local env flags
    for env in $2; do
        case $1-$env in
        ppo_imp-*Bullet*) flags="$seeds $coarse_rounds $bullet_steps" ;;
        ppo_imp-MazeGrid*) flags="$few_seeds $rounds $maze_steps" ;;
        ppo_imp-ALE/*) flags="$few_seeds $rounds $steps" ;;
        ppo_imp-*) flags="$seeds $rounds $steps" ;;
        dqn_imp-MazeGrid*) flags="$few_seeds $rounds $maze_steps $maze_dqn" ;;
        dqn_imp-MinAtar/*) flags="$few_seeds $coarse_rounds $minatar_dqn" ;;
        dqn_imp-*) flags="$few_seeds $rounds $steps" ;;
        bc_distill-MinAtar/*) flags="$few_seeds $rounds $updates" ;;
        bc_distill-*) flags="$seeds $rounds $updates" ;;
        esac
        grid algos/$1.py --env-id $env "${@:3}" --seeds $flags | sed "s/ENV/${env/\//-}/g"
    done
}
ppo() { tickets ppo_imp "$@"; }
dqn() { tickets dqn_imp "$@"; }
bc() { # where there is a teacher; algos/experts/README.md says how to make one
    local env
    for env in $1; do
        if [ -f "$root/algos/experts/$env.pt" ]; then
            tickets bc_distill $env "${@:2}"
        else
            echo "left out: behavioural cloning of $env, as there is no teacher algos/experts/$env.pt" >&2
        fi
    done
}

# Where another experiment reads the tickets of a run, its folder has a name that is known beforehand. With a --FLAG
# that changes results it needs another OUT: a run folder takes no other run, and says so. Start the experiment that
# reads them when that run is finished, with the same --FLAGs: a run that does not find its ticket fails and says so.
named() { # NAME ppo|dqn "ENV ..." [--FLAG "VALUE ..." ...]
    "${@:2}" --run-dir runs/ENV__$2_imp__$1-$scale
}
retrained() { # NAME ROUND ppo|dqn "ENV ...": dense agents that see only the inputs of the first seed's ticket
    local ticket=runs/ENV__$3_imp__$1-$scale/tickets/round$2_ticket_seed1.pt
    rounds="--rounds 0" coarse_rounds="--rounds 0" "${@:3}" --input-mask $ticket
}

# Early-bird tickets (Dimofte 2023). All repetitions, fractions and pruning episodes of a command train together. At
# paper scale these are the defaults.
earlybird() { # EXPERIMENT [--FLAG VALUE ...]
    grid algos/dqn_earlybird.py --experiment $1 --env-id "CartPole-v0 Acrobot-v1" $repetitions "${@:2}"
}

# ---- The experiments -------------------------------------------------------------------------------------------------

experiment() {
    case $1 in
    sac_halfcheetah) # our table (plot.py curves): all methods at 90% on HalfCheetah, RigL at two update intervals
        envs="HalfCheetah-v5"
        sac dense
        sac "rigl static set prune small" --sparsity 0.9
        sac rigl --sparsity 0.9 --update-interval 200 ;;
    sac_iqm) # figures 1, 15 (plot.py iqm): IQM over tasks at each sparsity
        sac dense
        sac "small $(at_scale rigl "$sparse" "$sparse")" --sparsity "$(at_scale 0.9 "0.9 0.95" "0.5 0.9 0.95")"
        envs=$(at_scale "" "" "HalfCheetah-v5 Hopper-v5 Walker2d-v5") # the paper has three tasks at 99%
        sac "small $sparse" --sparsity 0.99 ;;
    sac_scaling) # figures 2, 9 (plot.py scaling): final return against the number of parameters
        sparsities=$(at_scale 0.9 "0.5 0.8 0.9 0.95" "0.5 0.7 0.8 0.9 0.95") # the paper says 50% to 95%
        sac dense
        sac "$(at_scale "prune static set" "small $sparse" "small $sparse")" --sparsity "$sparsities" ;;
    sac_scaling_uniform) # figure 12 (plot.py scaling): as sac_scaling, with the same sparsity in every layer
        sparsities=$(at_scale 0.9 "0.5 0.8 0.9 0.95" "0.5 0.7 0.8 0.9 0.95")
        sac dense
        sac small --sparsity "$sparsities"
        sac "$(at_scale "static rigl" "$sparse" "$sparse")" --sparsity "$sparsities" --sparsity-distribution uniform ;;
    sac_actor_share) # figure 3 (plot.py split): share of the weights that the actor gets
        # Budgets of 100%, 20% and 10% of the dense weights. At 100% only the default, 0.337, is feasible for sparse
        # networks, as none has more weights than the dense one; at 20% and 10% all are, in all five tasks.
        shares=$(at_scale 0.5 "0.1 0.5 0.9" "0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9")
        sparsities=$(at_scale 0.8 "0.8 0.9" "0.8 0.9")
        sac dense
        sac small --sparsity 0 --actor-share "$shares"
        sac "small rigl" --sparsity "$sparsities"
        sac "small rigl" --sparsity "$sparsities" --actor-share "$shares" ;;
    sac_distribution) # figure 4, left (plot.py sensitivity --flag sparsity_distribution): uniform or ERK, at 80%
        envs=$tuning_env
        sac "$(at_scale prune "$sparse" "$sparse")" --sparsity 0.8 --sparsity-distribution "uniform erk" ;;
    sac_weight_decay) # figure 4, centre (plot.py sensitivity --flag weight_decay): weight decay, at 80%
        envs=$tuning_env decays=$(at_scale "0 1e-3" "0 1e-6 1e-4 1e-3" "0 1e-6 1e-4 1e-3")
        sac dense --weight-decay "$decays"
        sac "$(at_scale rigl "prune rigl" "$sparse")" --sparsity 0.8 --weight-decay "$decays" ;;
    sac_init) # figure 4, right (plot.py sensitivity --flag sparse_init): initial weights scaled by active fans or not, at 80%
        envs=$tuning_env methods=$(at_scale static "static rigl" "static set rigl")
        sac "$methods" --sparsity 0.8 --sparsity-distribution "uniform erk" "--sparse-init --no-sparse-init" ;;
    sac_snr) # figure 5 (plot.py snr): signal-to-noise ratio of the gradients, of actor and critics
        sac dense
        sac rigl --sparsity "$(at_scale 0.9 "0.9 0.95 0.99" "0.5 0.8 0.9 0.95 0.99")" ;;
    sac_drop_fraction) # figure 13, left (plot.py sensitivity --flag drop_fraction): connections replaced at first, at 80%
        envs=$tuning_env
        sac "set rigl" --sparsity 0.8 --drop-fraction "$(at_scale "0 0.3" "0 0.1 0.3 0.5" "0 0.1 0.2 0.3 0.5")" ;;
    sac_update_interval) # figure 13, centre (plot.py sensitivity --flag update_interval): steps between mask updates, at 80%
        envs=$tuning_env intervals=$(at_scale "100 250" "100 250 1000 5000" "100 250 500 1000 5000")
        sac "prune set rigl" --sparsity 0.8 --update-interval "$intervals" ;;
    sac_batch_size) # figure 13, right (plot.py sensitivity --flag batch_size): transitions per update, at 80%
        envs=$tuning_env sizes=$(at_scale "32 64" "64 128 256" "32 64 128 256 512") # the paper does not say which
        sac dense --batch-size "$sizes"
        sac "$(at_scale rigl "static rigl" "$sparse")" --sparsity 0.8 --batch-size "$sizes" ;;
    sac_output_layer) # figure 14 (plot.py scaling): ERK and uniform, all layers pruned or the last one dense
        # Two panels in the paper: add --where dense_output_layer=false, or =true, to draw one of them.
        envs=$(at_scale Pendulum-v1 HalfCheetah-v5 HalfCheetah-v5) methods=$(at_scale static "static rigl" "$sparse")
        sac dense
        sac "$methods" --sparsity "$(at_scale 0.9 "0.9 0.95" "0.5 0.7 0.8 0.9 0.95")" \
            --sparsity-distribution "erk uniform" "--no-dense-output-layer --dense-output-layer" ;;

    dqn_scaling) # figure 8, top (plot.py scaling): DQN on classic control, final return against the parameters
        dqn_rigl dense
        dqn_rigl "$(at_scale "prune static set" "small $sparse" "small $sparse")" --sparsity "$dqn_levels" ;;
    dqn_scaling_uniform) # figure 8, bottom (plot.py scaling): the same with the same sparsity in every layer
        dqn_rigl dense
        dqn_rigl small --sparsity "$dqn_levels"
        dqn_rigl "$(at_scale static "$sparse" "$sparse")" --sparsity "$dqn_levels" --sparsity-distribution uniform ;;
    dqn_snr) # figure 5, left (plot.py snr): signal-to-noise ratio of DQN's gradients
        dqn_rigl dense
        dqn_rigl "$(at_scale rigl "static rigl" "static rigl")" --sparsity "$dqn_levels" ;;
    dqn_output_layer) # figure 14, right (plot.py scaling): ERK and uniform on Acrobot, all layers pruned
        classic_dqn=$(at_scale CartPole-v1 Acrobot-v1 Acrobot-v1)
        dqn_rigl dense
        dqn_rigl "$(at_scale static "static rigl" "$sparse")" --sparsity "$dqn_levels" \
            --sparsity-distribution "erk uniform" ;;
    dqn_released) # ours (plot.py curves): dense networks by table 6, and with what the released code does
        dqn_rigl dense
        dqn_rigl dense "--start-e,0.01,--end-e,0.01,--eval-epsilon,0 --dense-init,he" ;;
    dqn_kernels) # ours (plot.py curves --against seconds): what sparse products save; one run at a time
        classic_dqn=CartPole-v1 dqn_budget="$dqn_budget --eval-epsilon 0"
        dqn_rigl dense
        dqn_rigl rigl --sparsity "$(at_scale 0.9 0.95 "0.9 0.95 0.99")" --kernel "masked sparse" ;;

    atari_scaling) # figures 2, 10 (plot.py scaling): DQN on Atari with the CNN, final return against the parameters
        # One run at paper scale takes 7.1 GB and is 10M steps with 2.5M updates. One core of ours does 91 steps a
        # second with --num-envs 8 --matmul-precision medium, with the ResNet 12: 31 hours, and 10 days. A run at small
        # scale is 500,000 steps: an hour and a half, and 12 hours.
        atari nature dense
        atari nature "$(at_scale "prune static set" "small $sparse" "small $sparse")" --sparsity "$atari_levels" ;;
    atari_scaling_uniform) # figure 12 (plot.py scaling): as atari_scaling, with the same sparsity in every layer
        atari nature dense
        atari nature small --sparsity "$atari_levels"
        atari nature "$(at_scale static "$sparse" "$sparse")" --sparsity "$atari_levels" \
            --sparsity-distribution uniform ;;
    atari_resnet_scaling) # figure 11 (plot.py scaling): as atari_scaling, with the ResNet
        atari impala dense
        atari impala "$(at_scale static "small $sparse" "small $sparse")" --sparsity "$atari_levels" ;;
    atari_iqm) # figures 1, 17 (plot.py iqm): DQN on Atari with the CNN, IQM over games at each sparsity
        atari nature dense
        atari_levels=$(at_scale 0.9 0.9 "0.5 0.9 0.95 0.99")
        atari nature "small $(at_scale rigl "$sparse" "$sparse")" --sparsity "$atari_levels" ;;
    atari_resnet_iqm) # figures 1, 18 (plot.py iqm): as atari_iqm, with the ResNet
        atari impala dense
        atari_levels=$(at_scale 0.9 0.9 "0.5 0.9 0.95 0.99")
        atari impala "small $(at_scale "" "$sparse" "$sparse")" --sparsity "$atari_levels" ;;
    atari_agents) # figure 6 (plot.py curves): agents for noise; atari_noise comes after it
        atari_agents train_for_noise ;;
    atari_noise) # figure 6 (plot.py noise): the agents of atari_agents with noise on what they see
        # The paper chose agents of equal return. Figure 7 needs no runs: plot.py flops.
        atari_agents play_with_noise ;;

    ppo_iqm) # figures 1, 16 (plot.py iqm): PPO, IQM over tasks at each sparsity; plot.py takes sac_iqm's list beside it
        ppo_rigl dense
        ppo_rigl "small $(at_scale rigl "$sparse" "$sparse")" --sparsity "$(at_scale 0.9 "0.9 0.95" "0.5 0.9")"
        mujoco_ppo=$(at_scale "" "" "Ant-v5 HalfCheetah-v5 Hopper-v5 Walker2d-v5") # as in the paper: four at 95%
        ppo_rigl "small $sparse" --sparsity 0.95
        mujoco_ppo=${mujoco_ppo#Ant-v5 } # and three at 99%
        ppo_rigl "small $sparse" --sparsity 0.99 ;;
    ppo_scaling) # figures 2, 9 (plot.py scaling): PPO, final return against the number of parameters
        ppo_rigl dense
        ppo_rigl "$(at_scale "prune static set" "small $sparse" "small $sparse")" --sparsity "$ppo_levels" ;;
    ppo_scaling_uniform) # figure 12 (plot.py scaling): as ppo_scaling, with the same sparsity in every layer
        ppo_rigl dense
        ppo_rigl small --sparsity "$ppo_levels"
        ppo_rigl "$(at_scale static "$sparse" "$sparse")" --sparsity "$ppo_levels" --sparsity-distribution uniform ;;
    ppo_released) # ours (plot.py curves): dense networks, and each way in which the released code differs, by itself
        ppo_rigl dense
        released="--time-limits,terminal --no-clip-actions --mean,tanh --boundary-frames,scored --initial-variance,0"
        released="$released --statistics,before --normalize-rewards,reward --epochs,together"
        ppo_rigl dense "$released --dense-init,orthogonal,--actor-output-scale,1" ;;

    imp_rl_bc) # figures 1, 2, 3 (plot.py tickets): four conditions, PPO against behavioural cloning
        # Figure 1, right, is the mean over the Bullet tasks, normalised, which plot.py does not draw.
        ppo "$classic"
        named default ppo "$(at_scale "" "" "$bullet")"
        bc "$classic $(at_scale "" "" "$bullet")" ;;
    imp_on_policy) # figure 4 (plot.py tickets): four conditions, PPO on Bullet and Atari, at small scale on Acrobot
        # The text of the paper does not name its games; these are the first three of Graesser et al. 2022.
        named default ppo "$(at_scale "" "" "$bullet")"
        ppo "$(at_scale Acrobot-v1 Acrobot-v1 "ALE/MsPacman-v5 ALE/Pong-v5 ALE/Qbert-v5")" ;;
    imp_inputs_bullet) # figure 7 (plot.py inputs): which inputs Bullet agents lose; imp_retrain_bullet comes after it
        named default ppo "$bullet" ;;
    imp_retrain_bullet) # figure 7 (plot.py tickets): dense Bullet agents with all inputs and with the surviving ones
        named default ppo "$bullet"
        retrained default $bullet_round ppo "$bullet" ;;
    imp_inputs) # figure 8 (plot.py inputs --where env_id=CartPole-v1): which inputs are lost, by initial weights
        # For the paper's other task --where env_id=Acrobot-v1. imp_retrain comes after it.
        ppo "$classic"
        named small-input-init ppo "$classic" --input-init-scale 0.1 --conditions ticket
        ppo "$classic" --init xavier --conditions ticket ;;
    imp_retrain) # figure 8, bottom (plot.py tickets): dense agents with all inputs and with the surviving ones
        ppo "$classic"
        retrained small-input-init $cartpole_round ppo CartPole-v1
        retrained small-input-init $acrobot_round ppo "$acrobot" ;;
    imp_sizes) # figure 11 (plot.py tickets): sizes of the networks, PPO and behavioural cloning
        # The sizes of the students are those of tables 2 and 4. Those of the agents are not in the paper. What stands
        # first is the default. The paper's figure has numbers of weights on its axis, which are the column remaining.
        ppo "$classic"
        bc "$classic"
        ppo CartPole-v1 --hidden-sizes "128,128 256,256" --conditions ticket permuted_permuted
        bc CartPole-v1 --hidden-sizes 256,256 --conditions ticket permuted_permuted
        ppo "$acrobot" --hidden-sizes "256,128 512,256" --conditions ticket permuted_permuted
        bc "$acrobot" --hidden-sizes "256,128 512,256" --conditions ticket permuted_permuted ;;
    imp_off_policy) # figure 4, MazeGrid (plot.py tickets): four conditions, DQN
        named default dqn MazeGrid-v0 ;;
    imp_goggles) # figure 5 (plot.py goggles): what DQN's tickets see of MazeGrid; imp_retrain_goggles comes after it
        named default dqn MazeGrid-v0 ;;
    imp_retrain_goggles) # figure 5, bottom (plot.py tickets): dense agents with all pixels and with the surviving ones
        named default dqn MazeGrid-v0
        retrained default $maze_round dqn MazeGrid-v0 ;;
    imp_goggles_minatar) # figure 6 (plot.py goggles --where env_id=MinAtar/Breakout-v1): what DQN's tickets see
        # For the other games --where env_id=MinAtar/SpaceInvaders-v1, and at paper scale Freeway and Asterix.
        named default dqn "$games" ;;
    imp_minatar_bc) # figure 9 (plot.py tickets): four conditions, cloning of DQN's values, MLP and CNN
        dense=$scale/tickets/round00_dense_seed1.pt # the teachers: the first seed's dense agents of imp_minatar
        tickets bc_distill "$games" --teacher "runs/ENV__dqn_imp__default-$dense runs/ENV__dqn_imp__cnn-$dense" ;;
    imp_minatar) # figure 10 (plot.py tickets): four conditions, DQN, MLP and CNN; imp_minatar_bc comes after it
        named default dqn "$games"
        named cnn dqn "$games" --network cnn ;;
    imp_swapped) # figure 12 (plot.py tickets): PPO on MazeGrid, and DQN on Cart-Pole with networks of several sizes
        ppo MazeGrid-v0
        dqn CartPole-v1
        dqn CartPole-v1 --hidden-sizes "$(at_scale 16,16 128,64 "128,128 256,256")" ;; # the paper does not say which
    imp_encodings) # figure 13 (plot.py tickets): MazeGrid in colours, and with entangled inputs
        dqn "MazeGridRGB-v0 MazeGridEntangled-v0" ;;
    imp_regularisation) # figure 14, left, centre (plot.py tickets): with and without weight decay, and dropout
        maze=$(at_scale MazeGrid-v0 "" MazeGrid-v0) # the paper's agent; those of PPO are its counterparts
        ppo "$classic"
        ppo "$classic" --weight-decay 0.1
        ppo "$classic" --dropout 0.1
        named default dqn "$maze"
        dqn "$maze" --weight-decay 0.1
        dqn "$maze" --dropout 0.1 ;;
    imp_rewind) # figure 14, right (plot.py tickets): rewinding to the weights after 2%, 8% and 80% of training
        maze=$(at_scale MazeGrid-v0 "" MazeGrid-v0) # the paper's agent, of 5,000,000 steps
        ppo "$classic"
        ppo CartPole-v1 --rewind-steps "$(at_scale 1024 "1600 6400 64000" "1600 6400 64000")"
        ppo "$acrobot" --rewind-steps "10000 40000 400000"
        named default dqn "$maze"
        dqn "$maze" --rewind-steps "$(at_scale 1024 "" "100000 400000 4000000")" ;;
    imp_prune_critic) # figure 15 (plot.py tickets): prune actor and critic, or the actor alone
        ppo "$(at_scale CartPole-v1 "" "")"
        ppo "$(at_scale CartPole-v1 "" "")" --prune both
        named default ppo "$(at_scale "" "$bullet" "$bullet")"
        ppo "$(at_scale "" "$bullet" "$bullet")" --prune actor ;;

    eb_similarity) # figure 3.3 (plot.py earlybird): how similar masks are over training
        earlybird similarity ;;
    eb_retrain) # figures 3.4, 3.5, 3.6 (plot.py earlybird): pruned early, then trained from the initial weights
        earlybird retrain $(at_scale "--prune-episodes 5" "" "") ;;
    eb_finetune) # figures 3.5, 3.6, 3.7 (plot.py earlybird): pruned early, then trained on
        earlybird finetune $(at_scale "--prune-episodes 5" "" "") ;;
    eb_exploit) # figure 3.8 (plot.py earlybird): EB Exploit, which decides itself when to prune
        earlybird exploit ;;
    esac
}

# ---- From here on nothing needs a change for a new experiment --------------------------------------------------------

fail() { echo "error: $1" >&2; exit 2; }
experiments() { grep '^    [a-z0-9_]*) # .*(plot\.py .*): ' "$root/benchmark.sh" | sed 's/^ *//'; } # their first lines
count() { printf %s "$results" | grep -c "$1"; } # the results so far that match
label_of() { echo "$1" | sed -e 's/ --total-timesteps.*//' -e 's/ --seeds.*//'; } # tells a command from the others
log_of() { echo "$logs/$(label_of "${1#algos/}" | sed -e 's/--//g' -e 's|[ /]|_|g').txt"; }

commands() { # of the experiment, seed after seed: if it is stopped, what there is can be compared
    set -u # a misspelt name is an error, not an empty list
    set_scale
    experiment "$name" | sed -e 's/.* --seed \([0-9]*\) .*/\1 &/' -e 's/^algos/0 &/' | sort -sn -k1,1 | cut -d' ' -f2-
}

list() {
    local line name scale
    printf '%-20s %6s %6s %6s  %s\n' experiment smoke small paper "runs for figure ... (and how to draw it)"
    while read -r line; do
        name=${line%%)*}
        printf '%-20s' "$name"
        for scale in smoke small paper; do printf ' %6d' "$(commands 2> /dev/null | wc -l)"; done
        printf '  %s\n' "${line#*# }"
    done < <(experiments)
}

start() { # a command, in the background; the shell becomes the program, so that signals reach it
    (cd "$OUT" && eval "exec $python $scripts$1$extra") >> "$(log_of "$1")" 2>&1 &
    running[$!]=$1
    if [ -n "$stopped" ]; then kill -TERM $!; fi # Ctrl-C came just before
}

collect() { # book the runs that have ended
    local pid status log result alive
    alive=" "$(jobs -rp | tr '\n' ' ')
    for pid in "${!running[@]}"; do
        case $alive in *" $pid "*) continue ;; esac
        wait "$pid"; status=$?
        log=$(log_of "${running[pid]}")
        if [ $status -eq 0 ]; then
            result=passed
            if tail -n 1 "$log" | grep -q ' is finished; --fresh '; then result=skipped; fi # all that such a run says
            # The run's folder, as seen from runs/, is in the last of the lines that have one.
            sed -n -e 's/ is finished; --fresh .*//p' -e 's/^final score.*(\(.*\))$/\1/p' \
                -e 's/^draw: python plot\.py [a-z]* //p' "$log" |
                tail -n 1 | sed -e 's/^runs\///' -e t -e 's/^[^/]/..\/&/' >> "$folders"
        elif [ -n "$stopped" ] || [ $status -eq 130 ] || [ $status -eq 143 ]; then
            result=stopped # by Ctrl-C or by kill
        else
            result=failed
            failures="$failures  ${running[pid]}"$'\n'"    $log: $(tail -n 1 "$log")"$'\n'
        fi
        results="$results$result"$'\n'
        printf '[%d/%d] %-7s  %s\n' "$(count .)" "$total" $result "$(label_of "${running[pid]}")"
        unset "running[pid]"
    done
}

until_fewer_than() { while [ "${#running[@]}" -ge "$1" ]; do sleep 0.2; collect; done; } # N runs are left

run_here() {
    local stopped="" results="" failures="" running=() total command folders=$OUT/runs/$name-$scale.txt
    total=$(commands 2> /dev/null | wc -l)
    : > "$folders"
    trap 'stopped=yes; kill -TERM $(jobs -rp) 2> /dev/null' INT TERM
    while read -r command; do
        until_fewer_than "$JOBS"
        if [ -n "$stopped" ]; then break; fi
        start "$command"
    done < <(commands)
    until_fewer_than 1
    printf '\n%-20s %-5s %7s %7s %7s\n' experiment scale passed failed skipped
    printf '%-20s %-5s %7d %7d %7d\n' "$name" "$scale" "$(count passed)" "$(count failed)" "$(count skipped)"
    if [ -n "$failures" ]; then printf 'failed:\n%s' "$failures"; fi
    if [ -n "$stopped" ] || [ "$(count stopped)" -gt 0 ]; then
        echo "stopped with $((total - $(count .) + $(count stopped))) runs to go; the same command goes on from there"
        exit 130
    fi
    echo "draw: $python ${scripts}plot.py $(experiments | sed -n "s/^$name) .*(plot\.py \(.*\)):.*/\1/p")" \
        "$(printf %q "$folders")"
    if [ -n "$failures" ]; then exit 1; fi
}

run_on_slurm() {
    local refused=0 command
    while read -r command; do
        # Five minutes before its time is up a run is told to write its checkpoint. SBATCH_ARGS come later, so they win.
        sbatch --job-name="$name" --cpus-per-task=1 --signal=B:TERM@300 --output="$(log_of "$command")" \
            --open-mode=append $SBATCH_ARGS --wrap="cd $out && exec $python $scripts$command$extra" ||
            refused=$((refused + 1))
    done < <(commands)
    if [ $refused -gt 0 ]; then echo "$refused runs were not submitted"; exit 1; fi
    echo "when they have ended, the same with LAUNCH=local counts what is finished and says how to draw it"
}

root=$(cd "$(dirname "$0")" && pwd)
LAUNCH=${LAUNCH:-local} OUT=${OUT:-$root} PYTHON=${PYTHON:-python} JOBS=${JOBS:-$(getconf _NPROCESSORS_ONLN)}
case ${1--h} in
-h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$root/benchmark.sh"; exit ;;
list) list; exit ;;
esac
name=$1 scale=${2:-small} extra=""
if [ $# -gt 2 ]; then extra=$(printf ' %q' "${@:3}"); fi # as a shell reads them
if [ "$name" = dqn_kernels ]; then JOBS=1; fi            # only runs that have the machine to themselves can be timed
experiments | grep -q "^$name) " || fail "no experiment $name; ./benchmark.sh list names them"
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
    if [ "$LAUNCH" = local ]; then run_here; else run_on_slurm; fi ;;
*) fail "LAUNCH is local, slurm or print, not $LAUNCH" ;;
esac
