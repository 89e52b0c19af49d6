#!/usr/bin/env bash
# Puts the crawler into Google Cloud: private, with the least rights, on a schedule, watched.
#
#   PROJECT_ID=my-project REGION=us-central1 BUCKET=my-songs CONTACT=me@example.org RATE=20 ./deploy.sh
#
# Settings come from the environment or from deploy.env; deploy.env.example lists all of them.
# It may be run again at any time: it makes what is not there, and changes what is not as it should.
# Read it from the bottom up: main, then deploy, then a function for each resource.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
  cat <<'USAGE'
usage: ./deploy.sh [--dry-run [--again]] [COMMAND]

without a command: deploy
  --status        what stands, and what the last runs answered
  --stop          end running crawls within 10 s, and pause schedule and queue
  --resume        release what --stop or a refused token held
  --rotate-token  read a new token, try it, switch to it, disable the old one
  --rollback      go back to the revision before
  --delete        take everything down but the songs (with --with-data: those too)

  --dry-run       print each gcloud command on a line of its own, and run none
  --again         in a dry run: as if everything stood already
USAGE
}

# ---------------------------------------------------------------- how commands are run

say() { printf '%s\n' "$*" >&2; }

die() {
  say "deploy.sh: $*"
  exit 1
}

# Prints a command so that a shell reads it back as it is.
print_command() {
  local word line=''
  for word in "$@"; do
    case $word in
      *[!A-Za-z0-9_=:,./@%+-]* | '') word="'${word//\'/\'\\\'\'}'" ;;
    esac
    line+="$word "
  done
  printf '%s\n' "${line% }" >&3
}

# Runs one gcloud command, or prints it. What it has to say goes to stderr.
cloud() {
  if [ "$DRY_RUN" = yes ]; then
    print_command gcloud "$@" --project="$PROJECT_ID" --quiet
  else
    gcloud "$@" --project="$PROJECT_ID" --quiet >&2
  fi
}

# Binds a role to a member. An account made a moment ago may not be known everywhere yet.
grant() {
  local pause
  for pause in 5 10 20; do
    if cloud "$@" --format=none; then
      return 0
    fi
    say "trying again in $pause s"
    sleep "$pause"
  done
  cloud "$@" --format=none
}

# Runs one gcloud command for its output; in a dry run prints it, and answers with $1.
ask() {
  local placeholder=$1
  shift
  if [ "$DRY_RUN" = yes ]; then
    print_command gcloud "$@" --project="$PROJECT_ID" --quiet
    [ -z "$placeholder" ] || printf '%s\n' "$placeholder"
  else
    gcloud "$@" --project="$PROJECT_ID" --quiet
  fi
}

# Whether a resource is there: any `describe` that succeeds; what it says is left in FOUND. In a dry
# run the answer is --again, and $1 what would be found. Another failure than "not there" ends all.
there_is() {
  local file status=0
  FOUND=$1
  shift
  if [ "$DRY_RUN" = yes ]; then
    print_command gcloud "$@" --project="$PROJECT_ID" --quiet
    [ "$AGAIN" = yes ]
    return
  fi
  file=$(mktemp)
  FOUND=$(gcloud "$@" --project="$PROJECT_ID" --quiet 2>"$file") || status=$?
  if [ $status != 0 ] && ! grep -qiE 'not.?found|cannot find|does not exist' "$file"; then
    die "gcloud $1 $2 $3: $(cat "$file")"
  fi
  rm -f "$file"
  return $status
}

crawler() { "$PYTHON" -m crawler deployment "$@"; }

# ---------------------------------------------------------------- settings

# The project's own Python, set up when it is not there yet.
find_python() {
  PYTHON=${PYTHON:-.venv/bin/python}
  if [ ! -x "$PYTHON" ]; then
    make --silent .venv/.installed >&2
  fi
}

# Every setting, checked, becomes a variable of this script; see crawler/deployment/deployment.py.
read_settings() {
  local settings
  settings=$(crawler settings --file "${DEPLOY_ENV:-deploy.env}" "${1:---quiet}") || exit 2
  eval "$settings"
  RUNTIME=$SERVICE-run@$PROJECT_ID.iam.gserviceaccount.com
  BUILDER=$SERVICE-build@$PROJECT_ID.iam.gserviceaccount.com
  INVOKER=$SERVICE-call@$PROJECT_ID.iam.gserviceaccount.com
  STORE=gs://$BUCKET/$PREFIX
  JOB=$SERVICE-next
  BUILD=build/deploy
}

check_prerequisites() {
  say "Prerequisites: gcloud with its components alpha and beta, logged in (gcloud auth login) as"
  say "somebody who owns $PROJECT_ID, and billing enabled there."
  need curl "a new version is tried with it"
}

# Ends where a program is not there, and would else look like a service that is not there.
need() {
  [ "$DRY_RUN" = yes ] || command -v "$1" >/dev/null || die "$1 is missing: $2"
}

# ---------------------------------------------------------------- one function per resource

enable_apis() {
  cloud services enable run.googleapis.com cloudbuild.googleapis.com \
    artifactregistry.googleapis.com cloudscheduler.googleapis.com cloudtasks.googleapis.com \
    secretmanager.googleapis.com storage.googleapis.com iam.googleapis.com \
    logging.googleapis.com monitoring.googleapis.com
}

make_account() {
  there_is "" iam service-accounts describe "$1" ||
    cloud iam service-accounts create "${1%%@*}" --display-name="$2"
}

make_accounts() {
  make_account "$RUNTIME" "$SERVICE: runs the crawl"
  make_account "$BUILDER" "$SERVICE: builds its image"
  make_account "$INVOKER" "$SERVICE: calls the function"
}

# The one role that Google gives to who builds from source; it has no right over anything that runs.
allow_build() {
  grant projects add-iam-policy-binding "$PROJECT_ID" --member="serviceAccount:$BUILDER" \
    --role=roles/run.builder --condition=None
}

make_bucket() {
  there_is "" storage buckets describe "gs://$BUCKET" ||
    cloud storage buckets create "gs://$BUCKET" --location="$REGION" \
      --uniform-bucket-level-access --public-access-prevention --soft-delete-duration=7d
  grant storage buckets add-iam-policy-binding "gs://$BUCKET" \
    --member="serviceAccount:$RUNTIME" --role=roles/storage.objectUser
}

# Passes the new token on, from TOKEN_FILE or standard input; it is never an argument.
read_token() {
  if [ -n "$TOKEN_FILE" ]; then
    crawler token <"$TOKEN_FILE"
  else
    [ ! -t 0 ] || say "Paste the client access token, then press Enter and Ctrl-D:"
    crawler token
  fi
}

# A file without a token is told before anything is touched, unless the token is kept already.
check_token_file() {
  if [ -z "$TOKEN_FILE" ] || [ "$SECRET" = none ] || [ "$AGAIN" = yes ]; then
    return 0
  fi
  if ! { [ -r "$TOKEN_FILE" ] && crawler token <"$TOKEN_FILE" >/dev/null; } &&
    [ -z "$(newest_version '' 2>/dev/null)" ]; then
    say "deploy.sh: TOKEN_FILE=$TOKEN_FILE holds no usable token"
    exit 2
  fi
}

# Adds a version of the secret. The token is checked before gcloud hears of it.
add_token() {
  if [ "$DRY_RUN" = yes ]; then
    cloud secrets versions add "$SECRET" --data-file=-
    return
  fi
  local token
  token=$(read_token) || die "no usable token; set TOKEN_FILE, or give it on standard input"
  printf '%s' "$token" | cloud secrets versions add "$SECRET" --data-file=-
}

# The newest version of the token that is not disabled; in a dry run: $1. Sorted and picked here,
# because gcloud cuts a list to --limit before it sorts.
newest_version() {
  ask "$1 enabled" secrets versions list "$SECRET" --sort-by=~createTime \
    --format='value(name.basename(), state)' |
    awk 'tolower($2) == "enabled" && !seen++ { print $1 }'
}

make_secret() {
  TOKEN_VERSION=''
  [ "$SECRET" != none ] || return 0
  if there_is "" secrets describe "$SECRET"; then
    TOKEN_VERSION=$(newest_version 1)
  else
    cloud secrets create "$SECRET" --replication-policy=automatic
  fi
  if [ -z "$TOKEN_VERSION" ]; then
    add_token
    TOKEN_VERSION=$(newest_version 1)
  fi
  grant secrets add-iam-policy-binding "$SECRET" --member="serviceAccount:$RUNTIME" \
    --role=roles/secretmanager.secretAccessor
}

# The queue for fan-out. Its concurrency is the number of instances, and the rate is divided by that.
make_queue() {
  [ -n "$QUEUE" ] || return 0
  local verb=create
  ! there_is "" tasks queues describe "$QUEUE" --location="$REGION" || verb=update
  cloud tasks queues "$verb" "$QUEUE" --location="$REGION" \
    --max-concurrent-dispatches="$MAX_INSTANCES" --max-dispatches-per-second=1 \
    --max-attempts=20 --min-backoff=30s --max-backoff=1800s --max-doublings=6 \
    --max-retry-duration=172800s --log-sampling-ratio=1.0
  grant tasks queues add-iam-policy-binding "$QUEUE" --location="$REGION" \
    --member="serviceAccount:$RUNTIME" --role=roles/cloudtasks.enqueuer
  grant iam service-accounts add-iam-policy-binding "$INVOKER" \
    --member="serviceAccount:$RUNTIME" --role=roles/iam.serviceAccountUser
}

# A service has this address before it is there, so the queue can be told in the first deployment.
add_queue_to_environment() {
  [ -n "$QUEUE" ] || return 0
  local number
  number=$(ask 123456789012 projects describe "$PROJECT_ID" --format='value(projectNumber)')
  ENVIRONMENT+=";CRAWLER_QUEUE=projects/$PROJECT_ID/locations/$REGION/queues/$QUEUE"
  ENVIRONMENT+=";CRAWLER_URL=https://$SERVICE-$number.$REGION.run.app"
  ENVIRONMENT+=";CRAWLER_INVOKER=$INVOKER;CRAWLER_SHARD_SONGS=$SHARD_SONGS"
}

# Copies what is uploaded to a folder of its own; nothing is touched in the cloud yet.
stage_upload() {
  if [ "$DRY_RUN" = yes ]; then
    print_command gcloud meta list-files-for-upload .
    return
  fi
  gcloud meta list-files-for-upload . |
    crawler stage "$BUILD/upload" --function="$FUNCTION" --requirements="$FUNCTION_REQUIREMENTS"
  check_own_function
}

# The same files and settings give the same fingerprint, and need no new version.
take_fingerprint() {
  FINGERPRINT=0123456789abcdef
  [ "$DRY_RUN" = yes ] ||
    FINGERPRINT=$(crawler fingerprint "$BUILD/upload" "$ENVIRONMENT" "$TOKEN_VERSION" "$MAX_INSTANCES")
}

# A function of the user's own is loaded where only what is uploaded is installed, and with nothing
# but the environment it will have.
check_own_function() {
  [ -n "$FUNCTION" ] || return 0
  local environment
  IFS=';' read -r -a environment <<<"$ENVIRONMENT"
  [ "$SECRET" = none ] || environment+=(GENIUS_TOKEN=not-the-token)
  say "Loading $FUNCTION in a clean environment"
  make_clean_environment
  (cd "$BUILD/upload" && env -i PATH="$PATH" PYTHONDONTWRITEBYTECODE=1 "${environment[@]}" \
    ../clean/bin/python -m crawler deployment own) ||
    die "FUNCTION=$FUNCTION cannot be used with what is uploaded"
}

# Where uv is at hand this takes a second or two; what uv cannot install, pip gets.
make_clean_environment() {
  local clean=$BUILD/clean requirements=$BUILD/upload/requirements.txt
  rm -rf "$clean"
  if uv venv --quiet --python "$PYTHON" "$clean" 2>/dev/null &&
    uv pip install --quiet --python "$clean" -r "$requirements" 2>/dev/null; then
    return
  fi
  "$PYTHON" -m venv --clear "$clean"
  "$clean/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements" >&2
}

# Finds out what stands: URL, TRIAL_URL, SERVING, PREVIOUS, FINGERPRINT_SERVED; all empty if nothing.
look_at_service() {
  local url=$SERVICE-123456789012.$REGION.run.app
  local dry='{"status": {"url": "https://'$url'", "traffic": [
    {"percent": 100, "revisionName": "'$SERVICE'-00002-new"},
    {"tag": "previous", "revisionName": "'$SERVICE'-00001-old"},
    {"tag": "trial", "url": "https://trial---'$url'"}]}}'
  there_is "$dry" run services describe "$SERVICE" --region="$REGION" --format=json ||
    FOUND='{}'
  eval "$(crawler service <<<"$FOUND")"
}

# The first version gets the traffic at once, since nothing calls it before there is a schedule. A
# later one is deployed without, asked for ten songs, and then switched to.
deploy_function() {
  look_at_service
  if [ -z "$URL" ]; then
    deploy_version
    allow_invoker
    look_at_deployed
    try_version "$URL" || die "the schedule is not made; mend it and run this again"
  elif [ "$FINGERPRINT_SERVED" = "$FINGERPRINT" ] && job_is_there; then
    say "The function stands as it should; it is left alone."
  else
    stop_crawls
    deploy_version --no-traffic --tag=trial
    allow_invoker
    look_at_deployed
    try_version "$TRIAL_URL" || die "the old version keeps the traffic"
    switch_to_latest
  fi
}

# In a dry run of a first deployment the service is there by now.
look_at_deployed() { AGAIN=yes look_at_service; }

# The revision that serves now keeps the tag `previous`, so that --rollback knows it.
switch_to_latest() {
  cloud run services update-traffic "$SERVICE" --region="$REGION" --to-latest --remove-tags=trial \
    --update-tags="previous=$SERVING"
}

deploy_version() {
  local secrets=()
  [ -z "$TOKEN_VERSION" ] || secrets=(--set-secrets="GENIUS_TOKEN=$SECRET:$TOKEN_VERSION")
  cloud run deploy "$SERVICE" --region="$REGION" --source="$BUILD/upload" \
    --function=crawl_songs --base-image=python313 \
    --build-service-account="projects/$PROJECT_ID/serviceAccounts/$BUILDER" \
    --service-account="$RUNTIME" --no-allow-unauthenticated \
    --concurrency=1 --min-instances=0 --max-instances="$MAX_INSTANCES" --timeout=1740 \
    --cpu="$CPU" --memory="${MEMORY_MIB}Mi" --labels="fingerprint=$FINGERPRINT" \
    --set-env-vars="^;^$ENVIRONMENT" ${secrets[@]+"${secrets[@]}"} "$@"
}

allow_invoker() {
  grant run services add-iam-policy-binding "$SERVICE" --region="$REGION" \
    --member="serviceAccount:$INVOKER" --role=roles/run.invoker
}

# Asks a version for ten songs that it must fetch afresh, and judges its answer.
try_version() {
  local body token
  body='{"start": '$FIRST_SONG', "stop": '$((FIRST_SONG + 10))', "refresh_older_than_days": 0}'
  token=$(identity_token "$URL") || return 1
  [ "$DRY_RUN" = no ] || return 0
  printf 'header = "Authorization: Bearer %s"\n' "$token" |
    curl --silent --show-error --max-time 300 --config - --header 'Content-Type: application/json' \
      --data "$body" "$1/" |
    crawler tried
}

# A person's token is good for every service; a service account's must name the one it is for.
identity_token() {
  local account
  account=$(ask '' config get-value account)
  case $account in
    *.gserviceaccount.com) ask TOKEN auth print-identity-token --audiences="$1" ;;
    *) ask TOKEN auth print-identity-token ;;
  esac
}

make_schedule() {
  local verb=create headers=--headers
  if job_is_there; then
    verb=update
    headers=--update-headers
  fi
  cloud scheduler jobs "$verb" http "$JOB" --location="$REGION" --schedule="$SCHEDULE" \
    --time-zone="$TIME_ZONE" --uri="$URL/" --http-method=POST \
    "$headers=Content-Type=application/json" --message-body='{"mode": "next"}' \
    --oidc-service-account-email="$INVOKER" --oidc-token-audience="$URL" \
    --attempt-deadline=1800s --max-retry-attempts=3 --min-backoff=60s --max-backoff=600s \
    --max-doublings=3 --format=none
}

# Who is told by alerts: a mail address becomes a notification channel, once.
make_channel() {
  CHANNEL=''
  [ -n "$ALERT_EMAIL" ] || return 0
  CHANNEL=$(ask "" beta monitoring channels list --limit=1 --format='value(name)' \
    --filter="type=email AND labels.email_address=$ALERT_EMAIL")
  [ -z "$CHANNEL" ] || return 0
  CHANNEL=$(ask "projects/$PROJECT_ID/notificationChannels/1" beta monitoring channels create \
    --display-name="$SERVICE" --type=email --channel-labels="email_address=$ALERT_EMAIL" \
    --format='value(name)')
}

# Metrics, alerts and dashboard: what stands with another content than deploy/ has is replaced.
make_watch() {
  local standing kind digest path name
  make_channel
  standing=$(standing_watch)
  while IFS=$'\t' read -r kind digest path name; do
    make_watched "$kind" "$digest" "$path" "$name" "$standing"
  done < <(crawler watch "$BUILD/watch" SERVICE="$SERVICE" CHANNEL="$CHANNEL" \
    PERIOD="$PERIOD_SECONDS")
}

# One line for each metric, alert and dashboard of ours: kind, resource, text with name and digest.
standing_watch() {
  ask "" logging metrics list --filter="name:$SERVICE-" \
    --format='value[separator="	"](name,name,description)' | sed 's/^/metrics	/'
  ask "" alpha monitoring policies list --filter="userLabels.service=$SERVICE" \
    --format='value[separator="	"](name,displayName,userLabels.content)' | sed 's/^/alerts	/'
  ask "" monitoring dashboards list --filter="labels.service=$SERVICE" \
    --format='value[separator="	"](name,displayName,labels.content)' | sed 's/^/dashboards	/'
}

make_watched() {
  local kind=$1 digest=$2 path=$3 name=$4 resource
  local line
  line=$(awk -F '\t' -v kind="$kind" -v name="$name" '$1 == kind && $3 == name' <<<"$5" | head -n 1)
  case $line in
    *"$digest"*) return 0 ;;
  esac
  resource=$(cut -f 2 <<<"$line")
  case $kind:$resource in
    metrics:) cloud logging metrics create "$name" --config-from-file="$path" ;;
    metrics:*) cloud logging metrics update "$resource" --config-from-file="$path" ;;
    alerts:) cloud alpha monitoring policies create --policy-from-file="$path" ;;
    alerts:*) cloud alpha monitoring policies update "$resource" --policy-from-file="$path" ;;
    dashboards:*)
      [ -z "$resource" ] || cloud monitoring dashboards delete "$resource"
      cloud monitoring dashboards create --config-from-file="$path"
      ;;
  esac
}

# ---------------------------------------------------------------- stop and go

# Rewrites control.json in the bucket: `stop` ends running crawls, `go` lifts that for what waits in
# the queue, `release` frees what a refused token held, `resume` does both.
control() {
  local old
  old=$(ask "" storage cat "$STORE/control.json" 2>/dev/null) || old=''
  if [ "$DRY_RUN" = no ]; then
    mkdir -p "$BUILD"
    printf '%s' "$old" | crawler control "$1" >"$BUILD/control.json"
  fi
  cloud storage cp "$BUILD/control.json" "$STORE/control.json"
}

# These leave the state in FOUND; $1 is what a dry run takes it to be.
job_is_there() {
  there_is "${1:-ENABLED}" scheduler jobs describe "$JOB" --location="$REGION" \
    --format='value(state)'
}

queue_is_there() {
  [ -n "$QUEUE" ] && there_is "${1:-RUNNING}" tasks queues describe "$QUEUE" \
    --location="$REGION" --format='value(state)'
}

quiet_schedule() {
  if job_is_there && [ "$FOUND" = ENABLED ]; then
    cloud scheduler jobs pause "$JOB" --location="$REGION" && WAS_ENABLED=yes
  fi
}

quiet_queue() {
  if queue_is_there && [ "$FOUND" = RUNNING ]; then
    queue_do pause && QUEUE_RAN=yes
  fi
}

# Tells running crawls to stop and keeps schedule and queue quiet, so that the rate never doubles.
# What was quiet before stays so; what ran is taken up again on the way out, however that is.
stop_crawls() {
  trap start_again EXIT
  quiet_schedule
  quiet_queue
  control stop
}

start_again() {
  if [ "$QUEUE_RAN" = yes ]; then
    QUEUE_RAN=no
    control go
    queue_do resume
  fi
  if [ "$WAS_ENABLED" = yes ]; then
    WAS_ENABLED=no
    cloud scheduler jobs resume "$JOB" --location="$REGION"
  fi
}

queue_do() {
  cloud tasks queues "$1" "$QUEUE" --location="$REGION"
}

# ---------------------------------------------------------------- commands

deploy() {
  check_token_file
  stage_upload
  enable_apis
  make_accounts
  allow_build
  make_bucket
  make_secret
  make_queue
  add_queue_to_environment
  take_fingerprint
  deploy_function
  make_schedule
  make_watch
  release_hold
  start_again
  [ "$DRY_RUN" = no ] || return 0
  say "Done. The first run comes with the schedule, or at once with:"
  say "  gcloud scheduler jobs run $JOB --location=$REGION --project=$PROJECT_ID"
}

# The new version has just fetched ten songs, so what a refused token held may go on.
release_hold() {
  local old
  old=$(ask held_at storage cat "$STORE/control.json" 2>/dev/null) || old=''
  case $old in
    *held_at*) control release ;;
  esac
}

show_status() {
  local columns=timestamp name
  for name in mode found missing failed remaining stopped_by; do
    columns+=",jsonPayload.$name"
  done
  say "--- function"
  ask "" run services describe "$SERVICE" --region="$REGION" \
    --format='table(status.url, status.latestReadyRevisionName)' || true
  say "--- schedule"
  ask "" scheduler jobs describe "$JOB" --location="$REGION" \
    --format='table(schedule, state, lastAttemptTime, status.code)' || true
  if [ -n "$QUEUE" ]; then
    say "--- queue"
    ask "" tasks queues describe "$QUEUE" --location="$REGION" --format='table(name, state)' || true
  fi
  say "--- last runs"
  ask "" logging read --limit=5 --freshness=7d --format="table($columns)" \
    "resource.labels.service_name=$SERVICE AND jsonPayload.event=run_finished" || true
  say "--- store"
  ask "" storage cat "$STORE/status.json" || say "nothing stored yet"
  ask "" storage cat "$STORE/control.json" 2>/dev/null || true
}

# The crawls are told in any case, also where schedule or queue cannot be paused.
stop_all() {
  local is_quiet=yes
  (quiet_schedule) || is_quiet=no
  (quiet_queue) || is_quiet=no
  control stop
  [ "$is_quiet" = yes ] || die "running crawls end, but more may be sent: see what failed above"
  say "Running crawls store what they have and end within 10 s. --resume takes them up again."
}

resume_all() {
  control resume
  if queue_is_there PAUSED && [ "$FOUND" = PAUSED ]; then
    queue_do resume
  fi
  if job_is_there PAUSED && [ "$FOUND" = PAUSED ]; then
    cloud scheduler jobs resume "$JOB" --location="$REGION"
  fi
}

rotate_token() {
  [ "$SECRET" != none ] || die "SECRET=none: there is no token to rotate"
  need curl "the new token is tried with it"
  local old
  old=$(newest_version 1)
  add_token
  TOKEN_VERSION=$(newest_version 2)
  [ "$TOKEN_VERSION" != "$old" ] || die "the new version of $SECRET is not there yet: run it again"
  stop_crawls
  cloud run services update "$SERVICE" --region="$REGION" --no-traffic --tag=trial \
    --update-secrets="GENIUS_TOKEN=$SECRET:$TOKEN_VERSION"
  look_at_deployed
  if ! try_version "$TRIAL_URL"; then
    cloud secrets versions disable "$TOKEN_VERSION" --secret="$SECRET"
    die "the new token was not taken; the old one stays in use"
  fi
  switch_to_latest
  [ -z "$old" ] || cloud secrets versions disable "$old" --secret="$SECRET"
  release_hold
  start_again
}

# The revision before may want a token that was disabled since, and would not start.
roll_back() {
  local version
  look_at_deployed
  [ -n "$PREVIOUS" ] || die "no revision served before $SERVING"
  version=$(ask '{"spec": {"containers": [{"env": [{"name": "GENIUS_TOKEN", "valueFrom":
    {"secretKeyRef": {"key": "1"}}}]}]}}' run revisions describe "$PREVIOUS" --region="$REGION" \
    --format=json | crawler pinned)
  if [ -n "$version" ]; then
    ask enabled secrets versions describe "$version" --secret="$SECRET" --format='value(state)' |
      grep -qi '^enabled' ||
      die "$PREVIOUS wants version $version of $SECRET, which is disabled: enable it, or deploy anew"
  fi
  stop_crawls
  cloud run services update-traffic "$SERVICE" --region="$REGION" --to-revisions="$PREVIOUS=100" \
    --remove-tags=previous
  start_again
  say "$PREVIOUS serves again, in place of $SERVING."
}

delete_all() {
  control stop || true
  delete_one scheduler jobs delete "$JOB" --location="$REGION"
  if queue_is_there; then queue_do pause || true; fi
  delete_one run services delete "$SERVICE" --region="$REGION"
  delete_watch
  [ "$SECRET" = none ] || delete_one secrets delete "$SECRET"
  delete_one projects remove-iam-policy-binding "$PROJECT_ID" \
    --member="serviceAccount:$BUILDER" --role=roles/run.builder --condition=None
  delete_accounts
  [ "$WITH_DATA" = no ] || delete_one storage rm "gs://$BUCKET" --recursive
  list_remains
}

# What is gone already is no reason to stop.
delete_one() { cloud "$@" || say "left as it is: $*"; }

delete_accounts() {
  local account
  for account in "$RUNTIME" "$BUILDER" "$INVOKER"; do
    delete_one iam service-accounts delete "$account"
  done
}

delete_watch() {
  local kind resource rest
  while IFS=$'\t' read -r kind resource rest; do
    case $kind in
      metrics) delete_one logging metrics delete "$resource" ;;
      alerts) delete_one alpha monitoring policies delete "$resource" ;;
      dashboards) delete_one monitoring dashboards delete "$resource" ;;
    esac
  done < <(standing_watch | sort -t "$(printf '\t')" -k 1,1)
  make_channel_gone
}

make_channel_gone() {
  local channel
  channel=$(ask "" beta monitoring channels list --limit=1 --format='value(name)' \
    --filter="type=email AND displayName=$SERVICE")
  [ -z "$channel" ] || delete_one beta monitoring channels delete "$channel"
}

list_remains() {
  say "What remains, and costs little or nothing:"
  [ "$WITH_DATA" = yes ] || say "  gs://$BUCKET, with the songs (--delete --with-data takes it, too)"
  [ -z "$QUEUE" ] || say "  queue $QUEUE, paused: a deleted queue's name is barred for 7 days"
  say "  images in the repository cloud-run-source-deploy, sources in run-sources-$PROJECT_ID-$REGION"
  say "  the APIs that were enabled"
}

# ---------------------------------------------------------------- what to do

WAS_ENABLED=no QUEUE_RAN=no COMMAND=deploy DRY_RUN=no AGAIN=no WITH_DATA=no

read_options() {
  local option
  for option in "$@"; do
    case $option in
      --dry-run) DRY_RUN=yes ;;
      --again) AGAIN=yes ;;
      --with-data) WITH_DATA=yes ;;
      --status | --stop | --resume | --rotate-token | --rollback | --delete) COMMAND=${option#--} ;;
      --help | -h)
        usage
        exit 0
        ;;
      *)
        usage >&2
        exit 2
        ;;
    esac
  done
}

main() {
  read_options "$@"
  exec 3>&1
  find_python
  if [ "$COMMAND" = deploy ]; then
    read_settings --tell
    check_prerequisites
  else
    read_settings
  fi
  need gcloud "cloud.google.com/sdk/docs/install says how to get it"
  [ "$COMMAND" = deploy ] || AGAIN=yes
  case $COMMAND in
    deploy) deploy ;;
    status) show_status ;;
    stop) stop_all ;;
    resume) resume_all ;;
    rotate-token) rotate_token ;;
    rollback) roll_back ;;
    delete) delete_all ;;
  esac
  [ "$DRY_RUN" = no ] || say "A dry run: the commands were printed, and none was run."
}

main "$@"
