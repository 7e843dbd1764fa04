#!/usr/bin/env bash
# One run on all accelerators of a Ray cluster, those of nodes that join later included.
#
#   ray start --head                                (on one machine)
#   ray start --address=HEAD:6379                   (on the others, with the same batchchat and the same model files)
#   recipes/cluster/ray.sh recipes/mt-bench.yaml    (on any of them)
#
# Further arguments are overrides: engine.replicas=16 asks for so many, which an autoscaling cluster makes room for;
# with engine.min_replicas=2 it is at least 2 and at most 16 of them, as the work that is left asks for.
set -euo pipefail

recipe=${1:?name a recipe}
shift

exec batchchat run "$recipe" engine.launcher=ray "$@"
