#!/usr/bin/env bash
# The jobs' images for terraform, by digest. Their tag is a hash of what they are made from, so a build happens only
# when that changed.
#   images.sh look  PROJECT REGION > images.auto.tfvars.json     (keeper-plan: builds nothing)
#   images.sh build PROJECT REGION > images.auto.tfvars.json     (keeper-apply: builds what is not there)
# `look` gives images that are not built yet a digest of zeros: the plan shows that they change, and plan_digest.sh
# takes the approval for whatever main's source is then built to.
set -euo pipefail
[ $# -eq 3 ] || { echo "usage: $0 look|build PROJECT REGION" >&2; exit 64; }
mode=$1 project=$2 region=$3
cd "$(dirname "$0")/../.."

repository="$region-docker.pkg.dev/$project/keeper"
mapfile -t targets < <(sed -n 's/^  - id: //p' images/cloudbuild.yaml)
tag=$(git ls-files -s -- images requirements.txt requirements-dev.txt | sha256sum | cut -c 1-12)
built=$(gcloud artifacts docker images list "$repository" --include-tags --filter="tags:$tag" --format='value(package)' | wc -l)

if [ "$built" -lt "${#targets[@]}" ] && [ "$mode" = build ]; then
  gcloud builds submit --config images/cloudbuild.yaml --region "$region" --project "$project" \
    --gcs-source-staging-dir "gs://$project-keeper-source/builds" --substitutions "_REGION=$region,_TAG=$tag" . >&2
  built=${#targets[@]}
fi
if [ "$built" -lt "${#targets[@]}" ]; then
  echo "images $tag are not built yet: the apply builds them" >&2
  printf '%s\n' "${targets[@]}" | jq --raw-input --slurp --arg repository "$repository" \
    '{images: (split("\n") | map(select(. != "") | {(.): "\($repository)/\(.)@sha256:\("0" * 64)"}) | add)}'
else
  images/digests.sh "$project" "$region" "$tag"
fi
