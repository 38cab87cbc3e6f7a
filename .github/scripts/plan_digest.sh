#!/usr/bin/env bash
# Reads `terraform show -json PLAN` on standard input, writes two lines for $GITHUB_OUTPUT: how many things would
# change, and a digest of exactly what, so that an approval holds for one plan and no other. Values are hashed, not
# shown. What is read (data) and what stays (no-op) does not count; nor does which bytes an image of the jobs was built
# to, since they are built from the approved source only after the approval (images.sh).
set -euo pipefail
what=$(jq --compact-output --sort-keys '
  [(.resource_changes // [])[] | select(.mode == "managed" and .change.actions != ["no-op"])
    | {address, deposed, previous_address, change}]
  + [(.output_changes // {}) | to_entries[] | select(.value.actions != ["no-op"])]
  | walk(if type == "string" then sub("@sha256:[0-9a-f]{64}$"; "@sha256") else . end)')
echo "changes=$(jq length <<<"$what")"
echo "digest=$(sha256sum <<<"$what" | cut -d ' ' -f 1)"
