#!/usr/bin/env bash
# Puts the crawler into Google Cloud: private, with the least rights, on a schedule, watched.
#
#   PROJECT_ID=my-project REGION=us-central1 BUCKET=my-songs CONTACT=me@example.org RATE=20 ./deploy.sh
#
# Settings come from the environment or from deploy.env; deploy.env.example lists all of them.
# It may be run again at any time: it makes what is not there, and changes what is not as it should.
# Read it from top to bottom: the sequence, a function for each resource, the other commands, how
# commands are run. What needs judgement is a step of `python -m crawler deployment`.
set -euo pipefail
cd "$(dirname "$0")"

usage='usage: ./deploy.sh [--dry-run [--again]] [COMMAND]

without a command: deploy
  --status        what stands, and what the last runs answered
  --stop          end running crawls within 10 s, and pause schedule and queue
  --resume        release what --stop or a refused token held
  --rotate-token  read a new token, try it, switch to it, disable the old one
  --rollback      go back to the revision before
  --delete        take everything down but the songs (with --with-data: those too)

  --dry-run       print each command on a line of its own, and run none
  --again         in a dry run: as if everything stood already'

# Metrics come first and alerts last: a new metric is not visible to alerts for up to ten minutes.
deploy() {
  take_token
  stage_upload
  enable_apis
  step region "$PROJECT_ID" "$REGION" --queue="$QUEUE"
  make_watch metrics
  make_accounts
  find_address
  check_identity
  make_bucket
  make_secret
  make_queue
  take_fingerprint
  deploy_function
  start_again
  make_schedule
  make_watch alerts dashboards
  step control release "$STORE"
  if [ "$JOB_STATE" = PAUSED ]; then
    say "Done. The schedule is paused, as it was before; ./deploy.sh --resume takes it up."
  elif [ "$DRY_RUN" = no ]; then
    say "Done. The first run comes with the schedule, or at once with:
  gcloud scheduler jobs run $JOB --location=$REGION --project=$PROJECT_ID"
  fi
}

# ---------------------------------------------------------------- one function per resource

# Reads the token where none is kept yet, so that a wrong one is told before anything is touched.
take_token() {
  TOKEN=''
  [ "$SECRET" = none ] ||
    TOKEN=$(ask '' token take "$PROJECT_ID" "$SECRET" --file="$TOKEN_FILE") || exit $?
}

# Copies what is uploaded to a folder of its own, and loads a function of the user's own from there.
stage_upload() {
  local names environment=$ENVIRONMENT${TOKEN_VARIABLE:+";$TOKEN_VARIABLE=not-the-token"}
  names=$(ask_cloud '' meta list-files-for-upload .) || exit $?
  step stage "$BUILD/upload" --function="$FUNCTION" --source="$SOURCE" \
    --requirements="$FUNCTION_REQUIREMENTS" --environment="$environment" <<<"$names"
}

enable_apis() {
  cloud services enable {run,cloudbuild,artifactregistry,cloudscheduler,cloudtasks}.googleapis.com \
    {secretmanager,storage,iam,iamcredentials,cloudresourcemanager}.googleapis.com \
    {logging,monitoring}.googleapis.com
}

# Metrics, alerts and dashboard: what stands with another content than deploy/ has is replaced.
make_watch() {
  step watch "$PROJECT_ID" "$SERVICE" "$PERIOD_SECONDS" "$@" --email="$ALERT_EMAIL"
}

# The account that builds gets the one role that Google made for that; it has no right over anything
# that runs. Whoever names an account of their own has seen to its rights on the project.
make_accounts() {
  make_account "$RUNTIME" "$RUN_ACCOUNT" "$SERVICE: runs the crawl"
  make_account "$INVOKER" "$CALL_ACCOUNT" "$SERVICE: calls the function"
  make_account "$BUILDER" "$BUILD_ACCOUNT" "$SERVICE: builds its image"
  [ -n "$BUILD_ACCOUNT" ] || cloud projects add-iam-policy-binding "$PROJECT_ID" \
    --member="serviceAccount:$BUILDER" --role=roles/run.builder --condition=None --format=none
}

make_account() {
  [ -n "$2" ] || there_is "" iam service-accounts describe "$1" ||
    cloud iam service-accounts create "${1%%@*}" --display-name="$3"
}

# A service has this address before it is there.
find_address() {
  local number form='value(projectNumber)'
  number=$(ask_cloud 123456789012 projects describe "$PROJECT_ID" --format="$form") || exit $?
  ADDRESS=https://$SERVICE-$number.$REGION.run.app
}

# Whether the trial can be made is known before anything is built.
check_identity() {
  [ -z "$DEPLOYER" ] || cloud iam service-accounts add-iam-policy-binding "$INVOKER" \
    --member="$DEPLOYER" --role=roles/iam.serviceAccountOpenIdTokenCreator --format=none
  step identity "$ADDRESS" "$INVOKER" --deployer="$DEPLOYER"
}

make_bucket() {
  there_is "" storage buckets describe "gs://$BUCKET" ||
    cloud storage buckets create "gs://$BUCKET" --location="$REGION" \
      --uniform-bucket-level-access --public-access-prevention --soft-delete-duration=7d \
      ${KMS_KEY:+"--default-encryption-key=$KMS_KEY"}
  cloud storage buckets add-iam-policy-binding "gs://$BUCKET" \
    --member="serviceAccount:$RUNTIME" --role=roles/storage.objectUser --format=none
}

make_secret() {
  TOKEN_VERSION=''
  [ "$SECRET" != none ] || return 0
  local replication=(--replication-policy=automatic)
  [ "$SECRET_REPLICATION" = automatic ] ||
    replication=(--replication-policy=user-managed --locations="$REGION")
  there_is "" secrets describe "$SECRET" || cloud secrets create "$SECRET" "${replication[@]}"
  keep_token
  cloud secrets add-iam-policy-binding "$SECRET" --member="serviceAccount:$RUNTIME" \
    --role=roles/secretmanager.secretAccessor --format=none
}

# The version that was just added, or the newest that is enabled. The token is never an argument.
keep_token() {
  TOKEN_VERSION=$(ask 1 token keep "$PROJECT_ID" "$SECRET" < <(printf '%s' "$TOKEN")) || exit $?
}

# The queue for fan-out. Its concurrency is the number of instances, and the rate is divided by that.
# One that is paused where there is no schedule was left so by --delete.
make_queue() {
  [ -n "$QUEUE" ] || return 0
  local verb=create
  if queue_is_there; then
    verb=update
    [ "$FOUND" != PAUSED ] || job_is_there || QUEUE_RAN=yes
  fi
  cloud tasks queues "$verb" "$QUEUE" --location="$REGION" \
    --max-concurrent-dispatches="$MAX_INSTANCES" --max-dispatches-per-second=1 \
    --max-attempts=20 --min-backoff=30s --max-backoff=1800s --max-doublings=6 \
    --max-retry-duration=172800s --log-sampling-ratio=1.0
  cloud tasks queues add-iam-policy-binding "$QUEUE" --location="$REGION" \
    --member="serviceAccount:$RUNTIME" --role=roles/cloudtasks.enqueuer --format=none
  cloud iam service-accounts add-iam-policy-binding "$INVOKER" \
    --member="serviceAccount:$RUNTIME" --role=roles/iam.serviceAccountUser --format=none
  ENVIRONMENT+=";CRAWLER_QUEUE=projects/$PROJECT_ID/locations/$REGION/queues/$QUEUE"
  ENVIRONMENT+=";CRAWLER_URL=$ADDRESS;CRAWLER_INVOKER=$INVOKER"
}

# The same files and settings give the same fingerprint, and need no new version.
take_fingerprint() {
  FINGERPRINT=0123456789abcdef
  [ "$DRY_RUN" = yes ] || FINGERPRINT=$(crawler fingerprint "$BUILD/upload" "$ENVIRONMENT" \
    "$TOKEN_VERSION" "$MAX_INSTANCES" "$RUNTIME $NETWORK $SUBNET") || exit $?
}

# The first version gets the traffic at once, since nothing calls it before there is a schedule. A
# later one is deployed without, asked for ten songs, and then switched to.
deploy_function() {
  look_at_service
  if [ -z "$SERVING" ]; then
    deploy_version
    AGAIN=yes look_at_service
    try_version "$URL"
  elif [ "$FINGERPRINT_SERVED" = "$FINGERPRINT" ] && job_is_there; then
    say "The function stands as it should; it is left alone."
  else
    stop_crawls
    deploy_version --no-traffic --tag=trial
    AGAIN=yes look_at_service
    try_version "$TRIAL_URL" --kept
    switch_to_latest
  fi
}

# Finds out what stands: URL, TRIAL_URL, SERVING, PREVIOUS, FINGERPRINT_SERVED; all empty if nothing.
# With AGAIN=yes it stands in a dry run, too.
look_at_service() {
  local lines
  there_is example run services describe "$SERVICE" --region="$REGION" --format=json || FOUND=''
  lines=$(crawler service <<<"$FOUND") || exit $?
  eval "$lines"
}

deploy_version() {
  cloud run deploy "$SERVICE" --region="$REGION" --source="$BUILD/upload" \
    --function=crawl_songs --base-image=python313 \
    --build-service-account="projects/$PROJECT_ID/serviceAccounts/$BUILDER" \
    --service-account="$RUNTIME" --no-allow-unauthenticated \
    --concurrency=1 --min-instances=0 --max-instances="$MAX_INSTANCES" --timeout=1740 \
    --cpu="$CPU" --memory="${MEMORY_MIB}Mi" --execution-environment="$GENERATION" \
    --labels="fingerprint=$FINGERPRINT" --set-env-vars="^;^$ENVIRONMENT" \
    ${TOKEN_VERSION:+"--set-secrets=$TOKEN_VARIABLE=$SECRET:$TOKEN_VERSION"} \
    ${NETWORK:+"--network=$NETWORK" "--subnet=$SUBNET" --vpc-egress=all-traffic} \
    "$@"
  cloud run services add-iam-policy-binding "$SERVICE" --region="$REGION" \
    --member="serviceAccount:$INVOKER" --role=roles/run.invoker --format=none
}

# Asks a version for songs that it must fetch afresh, and judges its answer.
try_version() {
  step try "$1" "$URL" "$INVOKER" "$FIRST_SONG" "$TRIAL_STOP" "$TRIAL_SECONDS" \
    --deployer="$DEPLOYER" "${@:2}"
}

# The revision that serves now keeps the tag `previous`, so that --rollback knows it.
switch_to_latest() {
  cloud run services update-traffic "$SERVICE" --region="$REGION" --to-latest --remove-tags=trial \
    --update-tags="previous=$SERVING"
}

make_schedule() {
  local verb=create headers=--headers
  if job_is_there; then verb=update headers=--update-headers; fi
  JOB_STATE=$FOUND
  cloud scheduler jobs "$verb" http "$JOB" --location="$REGION" --schedule="$SCHEDULE" \
    --time-zone="$TIME_ZONE" --uri="$URL/" --http-method=POST \
    "$headers=Content-Type=application/json" --message-body='{"mode": "next"}' \
    --oidc-service-account-email="$INVOKER" --oidc-token-audience="$URL" \
    --attempt-deadline=1800s --max-retry-attempts=3 --min-backoff=60s --max-backoff=600s \
    --max-doublings=3 --format=none
}

# ---------------------------------------------------------------- stop and go

# These leave the state in FOUND; $1 is what a dry run takes it to be.
job_is_there() { there_is "${1:-ENABLED}" scheduler jobs describe "$JOB" "${STATE[@]}"; }
queue_is_there() {
  [ -n "$QUEUE" ] && there_is "${1:-RUNNING}" tasks queues describe "$QUEUE" "${STATE[@]}"
}

job_do() { cloud scheduler jobs "$1" "$JOB" --location="$REGION"; }
queue_do() { cloud tasks queues "$1" "$QUEUE" --location="$REGION"; }

quiet_schedule() {
  if job_is_there && [ "$FOUND" = ENABLED ]; then job_do pause && JOB_RAN=yes; fi
}

quiet_queue() {
  if queue_is_there && [ "$FOUND" = RUNNING ]; then queue_do pause && QUEUE_RAN=yes; fi
}

# Tells running crawls to stop and keeps schedule and queue quiet, so that the rate never doubles.
# What was quiet before stays so; what ran is taken up again on the way out, however that is.
stop_crawls() {
  trap start_again EXIT
  quiet_schedule
  quiet_queue
  step control stop "$STORE"
}

start_again() {
  local queue_ran=$QUEUE_RAN job_ran=$JOB_RAN
  QUEUE_RAN=no JOB_RAN=no
  [ "$queue_ran" = no ] || step control go "$STORE"
  [ "$queue_ran" = no ] || queue_do resume
  [ "$job_ran" = no ] || job_do resume
}

# ---------------------------------------------------------------- the other commands

status() {
  local run=jsonPayload
  show function run services describe "$SERVICE" --region="$REGION" \
    --format='table(status.url, status.latestReadyRevisionName)'
  show schedule scheduler jobs describe "$JOB" --location="$REGION" \
    --format='table(schedule, state, lastAttemptTime, status.code)'
  [ -z "$QUEUE" ] ||
    show queue tasks queues describe "$QUEUE" --location="$REGION" --format='table(name, state)'
  show "last runs" logging read --limit=5 --freshness=7d --format="table(timestamp, \
    $run.mode, $run.found, $run.missing, $run.failed, $run.remaining, $run.stopped_by)" \
    "resource.labels.service_name=$SERVICE AND jsonPayload.event=run_finished"
  say "--- store"
  step show "$STORE/status.json"
  step show "$STORE/control.json"
}

show() {
  say "--- $1"
  there_is "" "${@:2}" || FOUND="not there"
  [ -z "$FOUND" ] || printf '%s\n' "$FOUND"
}

# The crawls are told in any case, also where schedule or queue cannot be paused.
stop() {
  (quiet_schedule) || LEFT+=" schedule"
  (quiet_queue) || LEFT+=" queue"
  step control stop "$STORE"
  [ -z "$LEFT" ] || die "running crawls end, but more may be sent by the$LEFT; see above" \
    "More may be sent after a stop"
  [ "$DRY_RUN" = yes ] ||
    say "Running crawls store what they have and end within 10 s. --resume takes them up again."
}

resume() {
  step control resume "$STORE"
  if queue_is_there PAUSED && [ "$FOUND" = PAUSED ]; then queue_do resume; fi
  if job_is_there PAUSED && [ "$FOUND" = PAUSED ]; then job_do resume; fi
}

rotate_token() {
  [ "$SECRET" != none ] || die "SECRET=none: there is no token to rotate" "A setting is wrong"
  local old
  look_at_service
  old=$(version_of "$SERVING")
  TOKEN=$(ask '' token read "$PROJECT_ID" "$SECRET" --file="$TOKEN_FILE") || exit $?
  keep_token
  stop_crawls
  cloud run services update "$SERVICE" --region="$REGION" --no-traffic --tag=trial \
    --update-secrets="$TOKEN_VARIABLE=$SECRET:$TOKEN_VERSION"
  look_at_service
  if ! (try_version "$TRIAL_URL" --kept); then
    cloud secrets versions disable "$TOKEN_VERSION" --secret="$SECRET"
    die "the new token was not taken; the old one stays in use" "The trial of a new version failed"
  fi
  switch_to_latest
  [ -z "$old" ] || cloud secrets versions disable "$old" --secret="$SECRET"
  step control release "$STORE"
  start_again
}

# Which version of the token a revision wants.
version_of() {
  there_is example run revisions describe "$1" --region="$REGION" --format=json || FOUND='{}'
  crawler pinned "$TOKEN_VARIABLE" <<<"$FOUND"
}

# The revision before may want a token that was disabled since, and would not start.
rollback() {
  local version
  look_at_service
  [ -n "$PREVIOUS" ] || die "no revision served before $SERVING" "There is no version to go back to"
  version=$(version_of "$PREVIOUS")
  [ -z "$version" ] || step usable "$PROJECT_ID" "$SECRET" "$version"
  stop_crawls
  cloud run services update-traffic "$SERVICE" --region="$REGION" --to-revisions="$PREVIOUS=100" \
    --remove-tags=previous
  start_again
  [ "$DRY_RUN" = yes ] || say "$PREVIOUS serves again, in place of $SERVING."
}

# What is gone already is no reason to stop; what cannot be deleted is told at the end.
delete() {
  (step control stop "$STORE") || LEFT+=" running-crawls"
  delete_one scheduler jobs delete "$JOB" --location="$REGION"
  (quiet_queue) || LEFT+=" queue"
  delete_one run services delete "$SERVICE" --region="$REGION"
  (step unwatch "$PROJECT_ID" "$SERVICE") || LEFT+=" alerts"
  [ "$SECRET" = none ] || delete_secret
  [ -n "$BUILD_ACCOUNT" ] || delete_one projects remove-iam-policy-binding "$PROJECT_ID" \
    --member="serviceAccount:$BUILDER" --role=roles/run.builder --condition=None --format=none
  [ -n "$RUN_ACCOUNT" ] || delete_one iam service-accounts delete "$RUNTIME"
  [ -n "$BUILD_ACCOUNT" ] || delete_one iam service-accounts delete "$BUILDER"
  [ -n "$CALL_ACCOUNT" ] || delete_one iam service-accounts delete "$INVOKER"
  [ "$WITH_DATA" = no ] || delete_one storage rm "gs://$BUCKET" --recursive
  [ -z "$LEFT" ] || die "could not be deleted, see above:$LEFT" "Something could not be deleted"
  [ "$DRY_RUN" = no ] || return 0
  say "What remains, and costs little or nothing:
  images in the repository cloud-run-source-deploy, sources in run-sources-$PROJECT_ID-$REGION
  the APIs that were enabled"
  [ "$WITH_DATA" = yes ] || say "  gs://$BUCKET, with the songs (--delete --with-data takes it, too)"
  [ -z "$QUEUE" ] || say "  queue $QUEUE, paused: a deleted queue's name is barred for 7 days"
  [ "$SECRET_STAYS" = no ] || say "  the secret $SECRET, which others may read"
}

# A token that others may read as well, such as another service, is left to them.
delete_secret() {
  local readers status=0
  readers=$(there_is "" secrets get-iam-policy "$SECRET" --flatten='bindings[].members' \
    --format='value(bindings.members)' && printf '%s' "$FOUND") || status=$?
  if [ $status != 0 ] && [ $status != "$NOT_THERE" ]; then
    LEFT+=" secrets-delete"
  elif grep -vxF "serviceAccount:$RUNTIME" <<<"$readers" | grep -q .; then
    SECRET_STAYS=yes
    delete_one secrets remove-iam-policy-binding "$SECRET" --format=none \
      --member="serviceAccount:$RUNTIME" --role=roles/secretmanager.secretAccessor
  else
    delete_one secrets delete "$SECRET"
  fi
}

delete_one() {
  local status=0
  (there_is "" "$@") || status=$?
  [ $status = 0 ] || [ $status = "$NOT_THERE" ] || LEFT+=" $1-$2"
}

# ---------------------------------------------------------------- how commands are run

say() { printf '%s\n' "$*" >&2; }

# Ends in words; $2 is the paragraph of the runbook.
die() { say "deploy.sh: $1"$'\n'"See RUNBOOK.md, \"$2\"." && exit 1; }

# Prints a command so that a shell reads it back as it is; what it would find is $1.
pretend() { { printf '%q ' "${@:2}" && echo; } >&3 && printf '%s' "$1"; }

# A step that asks nobody but this machine.
crawler() { "$PYTHON" -m crawler deployment "$@"; }

# A step that asks Google, for its output; $1 is that of a dry run.
ask() {
  if [ "$DRY_RUN" = no ]; then crawler "${@:2}"; else
    pretend "$1" "$PYTHON" -m crawler deployment "${@:2}"
  fi
}

step() { ask '' "$@" || exit $?; }

# A gcloud command; Python waits for what passes by itself, and says in words what does not.
ask_cloud() {
  local command=("${@:2}" --project="$PROJECT_ID" --quiet)
  if [ "$DRY_RUN" = yes ]; then pretend "$1" gcloud "${command[@]}"; else
    crawler gcloud ${IF_THERE:+"$IF_THERE"} -- "${command[@]}"
  fi
}

cloud() { ask_cloud '' "$@" >&2 || exit $?; }

# Whether a resource is there; what is said of it is left in FOUND. In a dry run the answer is
# --again. Another failure than "not there" ends all.
there_is() {
  local status=0
  FOUND=$(IF_THERE=--if-there ask_cloud "$@") || status=$?
  [ $status = 0 ] || [ $status = $NOT_THERE ] || exit $status
  [ "$DRY_RUN" = no ] || [ "$AGAIN" = yes ] || status=$NOT_THERE
  return $status
}

wrong_usage() { say "deploy.sh: $1"$'\n\n'"$usage" && exit 2; }

JOB_RAN=no QUEUE_RAN=no COMMAND=deploy DRY_RUN=no AGAIN=no WITH_DATA=no
LEFT='' IF_THERE='' SECRET_STAYS=no NOT_THERE=4 BUILD=build/deploy

main() {
  local option settings
  for option in "$@"; do
    case $option in
      --dry-run) DRY_RUN=yes ;;
      --again) AGAIN=yes ;;
      --with-data) WITH_DATA=yes ;;
      --status | --stop | --resume | --rotate-token | --rollback | --delete)
        [ "$COMMAND" = deploy ] || wrong_usage "--$COMMAND and $option are two commands"
        COMMAND=${option#--}
        ;;
      --help | -h) printf '%s\n' "$usage" && exit ;;
      *) wrong_usage "$option is no option" ;;
    esac
  done
  exec 3>&1
  PYTHON=${PYTHON:-.venv/bin/python}
  [ -x "$PYTHON" ] || make --silent .venv/.installed >&2
  # Every setting, checked, becomes a variable of this script.
  settings=$(crawler settings "$COMMAND" --file="${DEPLOY_ENV:-deploy.env}") || exit $?
  eval "$settings"
  STATE=(--location="$REGION" --format='value(state)')
  [ "$DRY_RUN" = yes ] || command -v gcloud >/dev/null || die \
    "gcloud is missing: cloud.google.com/sdk/docs/install says how to get it" "gcloud is missing"
  [ "$COMMAND" = deploy ] || AGAIN=yes
  "${COMMAND//-/_}"
  [ "$DRY_RUN" = no ] || say "A dry run: the commands were printed, and none was run."
}

main "$@"
