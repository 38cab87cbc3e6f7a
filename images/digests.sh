#!/usr/bin/env bash
# The digests of one build's images, as terraform wants them.
#   images/digests.sh PROJECT REGION TAG > terraform/images.auto.tfvars.json
set -euo pipefail
[ $# -eq 3 ] || { echo "usage: $0 PROJECT REGION TAG" >&2; exit 64; }
repository="$2-docker.pkg.dev/$1/keeper"
separator=""
printf '{"images": {'
for target in base postgres torch lighthouse; do
  digest=$(gcloud artifacts docker images describe "$repository/$target:$3" --project "$1" \
    --format 'value(image_summary.digest)')
  printf '%s\n  "%s": "%s/%s@%s"' "$separator" "$target" "$repository" "$target" "$digest"
  separator=","
done
printf '\n}}\n'
