#!/usr/bin/env bash
# scale=small on one GPU: rewards, KL, device time, memory and coalitions a second of every method.
#
# Every step is one command of at most STEP_SECONDS. A finished model or run is never made again, so the same command goes on
# where an earlier one ended: start it as often as needed. Models and runs that do not fit a step are named at the end.
#   DATA=<folder>   adds tldr on the real posts in <folder>/tldr (docs/paper_scale.md says which files)
#   SEEDS="1 2 3"   UPDATES=100   STEP_SECONDS=580   MINUTES=600 (ends before that)
set -uo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-.venv/bin}
SEEDS=${SEEDS:-1 2 3 4 5}
UPDATES=${UPDATES:-100}
STEP_SECONDS=${STEP_SECONDS:-580}
DEVICE=${DEVICE:-cuda}
SCALE=${SCALE:-small} # smoke: a rehearsal without a GPU, with DEVICE=cpu
EXTRA=${EXTRA:-}
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
deadline=$(($(date +%s) + 60 * ${MINUTES:-600}))
failed=()

step() {
  local left=$((deadline - $(date +%s)))
  if ((left < 30)); then
    echo "out of time before: $*"
    failed+=("$*")
    return
  fi
  timeout --signal=INT $((left < STEP_SECONDS ? left : STEP_SECONDS)) "$BIN/python" "$@" || failed+=("$*")
}

if [ "$DEVICE" = cuda ]; then
  "$BIN/python" -c 'import torch; assert torch.cuda.is_available(), "no CUDA device here"; print(torch.cuda.get_device_name())' || exit 1
fi
base="scale=$SCALE device=$DEVICE tracker=jsonl $EXTRA"

imdb="$base task=imdb ppo.updates=$UPDATES"
for kind in sft reward_model; do step experiments/$kind.py $imdb; done
for seed in $SEEDS; do # every method at one seed before the next seed, so that what there is can be compared
  for method in sparse uniform abc prefix; do step experiments/train.py $imdb shaping=$method seed=$seed; done
  step experiments/train.py $imdb shaping=scar segmentation=token seed=$seed
  step experiments/train.py $imdb shaping=scar segmentation=span seed=$seed paths.runs=sweeps/units
done
# The credit engine in bfloat16 beside float32: few updates, apart from the runs above.
for dtype in float32 bfloat16; do
  step experiments/train.py $imdb shaping=scar segmentation=token ppo.updates=10 coalitions.dtype=$dtype paths.runs=sweeps/dtype
done
step experiments/report.py costs scale=$SCALE records=sweeps/dtype units=none name=dtype results=results/dtype

if [ -n "${DATA:-}" ]; then
  tldr="$base task=tldr task.data_dir=$DATA/tldr ppo.updates=$UPDATES"
  for kind in sft reward_model; do step experiments/$kind.py $tldr; done
  for seed in $SEEDS; do
    for method in sparse uniform abc prefix scar; do step experiments/train.py $tldr shaping=$method seed=$seed; done
    step experiments/train.py $tldr shaping=scar segmentation=token seed=$seed paths.runs=sweeps/units
  done
fi
seeds=$(echo $SEEDS | tr ' ' ',')
for target in table1 costs; do step experiments/report.py $target scale=$SCALE seeds="$seeds"; done

if ((${#failed[@]})); then
  echo "not done (start this script again to go on):"
  printf '  %s\n' "${failed[@]}"
  exit 1
fi
