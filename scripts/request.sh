#!/usr/bin/env bash
# Prints the JSON body of a provision request for a folder with a compose.yaml.
#
#   scripts/request.sh FOLDER SUBDOMAIN ID [ENV_FILE]
#
# Every file of the folder but compose.yaml, .env* and README* goes into `files`, as base64 so that any content fits. Needs jq.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: request.sh FOLDER SUBDOMAIN ID [ENV_FILE]" >&2; exit 2; }
folder=$1 subdomain=$2 id=$3 env_file=${4:-/dev/null}
command -v jq >/dev/null || { echo "request.sh needs jq (Debian: apt-get install jq)" >&2; exit 1; }

files='{}'
while IFS= read -r path; do
  files=$(jq --arg path "$path" --rawfile content <(base64 -w0 "$folder/$path") '.[$path] = {base64: $content}' <<<"$files")
done < <(cd "$folder" && find . -type f ! -name compose.yaml ! -name '.env*' ! -name 'README*' -printf '%P\n' | sort)

jq -n --arg id "$id" --arg subdomain "$subdomain" --rawfile compose "$folder/compose.yaml" --rawfile env "$env_file" --slurpfile files <(echo "$files") \
  '{id: $id, subdomain: $subdomain, compose_content: $compose, env_content: $env, files: $files[0]}'
