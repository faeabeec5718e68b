{{- define "avatar.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Of a component: (list $ "gateway") */}}
{{- define "avatar.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "avatar.labels" -}}
{{ include "avatar.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- with (index . 0).Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Of an image: (list $ "gateway") */}}
{{- define "avatar.image" -}}
{{- $images := (index . 0).Values.images -}}
{{- $image := index $images (index . 1) -}}
{{- $tag := default (index . 0).Chart.AppVersion $image.tag -}}
{{- printf "%s%s" $images.registry $image.repository -}}
{{- if $image.digest -}}@{{ $image.digest }}{{- else -}}:{{ $tag }}{{- end -}}
{{- end }}

{{/* Of a pod: the user of its image */}}
{{- define "avatar.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "avatar.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities: {drop: [ALL]}
{{- end }}

{{/* What every pod has: (list $ "gateway" VALUES) */}}
{{- define "avatar.pod" -}}
{{- $ := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index . 2 -}}
serviceAccountName: {{ include "avatar.name" $ }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $.Values.images.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "avatar.spread" -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "avatar.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}

{{/* Limits with devices: (dict "resources" … "devices" …). A device without a number is left out. */}}
{{- define "avatar.resources" -}}
{{- $limits := deepCopy .resources.limits -}}
{{- range $name, $count := .devices -}}
{{- if $count -}}{{- $_ := set $limits $name ($count | toString) -}}{{- end -}}
{{- end -}}
resources:
  requests: {{ toYaml .resources.requests | nindent 4 }}
  limits: {{ toYaml $limits | nindent 4 }}
{{- end }}

{{- define "avatar.hasDevice" -}}
{{- range $name, $count := . -}}{{- if $count -}}yes{{- end -}}{{- end -}}
{{- end }}

{{/* Variables as a list, from a map; `env` of a component comes last and cannot repeat one of the chart */}}
{{- define "avatar.env" -}}
{{- range $name, $value := . }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{/* Variables of every process that runs jobs: (list $ VALUES) */}}
{{- define "avatar.serviceEnv" -}}
{{- $ := index . 0 -}}
{{- $values := index . 1 -}}
- name: AVATAR_DATABASE_URL
  valueFrom: {secretKeyRef: {{ include "avatar.databaseSecret" $ }}}
- {name: AVATAR_TRITON_URL, value: {{ printf "dns:///%s-triton-headless.%s.svc:8001" (include "avatar.name" $) $.Release.Namespace | quote }}}
- {name: AVATAR_TRITON_SHARED_MEMORY, value: "off"}
- {name: AVATAR_STORE, value: {{ include "avatar.storeLocation" $ | quote }}}
- {name: AVATAR_SHUTDOWN_GRACE, value: {{ $values.shutdownGrace | toString | quote }}}
- {name: AVATAR_LOG_FORMAT, value: json}
- {name: AVATAR_LOG_LEVEL, value: {{ $.Values.logLevel }}}
{{- include "avatar.commonEnv" $ }}
{{- include "avatar.storeEnv" $ }}
{{- end }}

{{/* Folders of every process that runs jobs: the mounts of its container */}}
{{- define "avatar.serviceMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: work, mountPath: /var/lib/avatar/work}
- {name: cache, mountPath: /var/lib/avatar/cache}
{{- if .Values.store.volume.enabled }}
- {name: store, mountPath: /var/lib/avatar/store}
{{- end }}
{{- end }}

{{/* … and the volumes of its pod: (list $ VALUES) */}}
{{- define "avatar.serviceVolumes" -}}
{{- $ := index . 0 -}}
{{- $values := index . 1 -}}
{{ include "avatar.folder" (list "tmp" "256Mi") }}
{{ include "avatar.folder" (list "work" $values.workSize) }}
{{ include "avatar.folder" (list "cache" $values.cacheSize) }}
{{- if $.Values.store.volume.enabled }}
- {name: store, persistentVolumeClaim: {claimName: {{ include "avatar.name" $ }}-store}}
{{- end }}
{{- end }}

{{- define "avatar.commonEnv" -}}
{{- with .Values.otlpEndpoint }}
- {name: AVATAR_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- end }}

{{- define "avatar.gpuEnv" -}}
{{- if include "avatar.hasDevice" . }}
- {name: NVIDIA_DRIVER_CAPABILITIES, value: "compute,utility,video"}
{{- end }}
{{- end }}

{{/* Secrets whose keys are variables */}}
{{- define "avatar.envFrom" -}}
{{- with . }}
envFrom:
  {{- range . }}
  - secretRef: {name: {{ . }}}
  {{- end }}
{{- end }}
{{- end }}

{{- define "avatar.databaseSecret" -}}
{{- if .Values.database.trial.enabled -}}
{name: {{ include "avatar.name" . }}-database, key: url}
{{- else -}}
{name: {{ required "database.urlSecret.name: name a Secret with the URL of PostgreSQL, or enable database.trial" .Values.database.urlSecret.name }}, key: {{ .Values.database.urlSecret.key }}}
{{- end -}}
{{- end }}

{{- define "avatar.storeLocation" -}}
{{- if .Values.store.volume.enabled -}}
{{- if .Values.store.location }}{{ fail "store: give a location, or enable the volume, not both" }}{{ end -}}
/var/lib/avatar/store
{{- else -}}
{{- required "store.location: give an object store (s3://bucket/prefix), or enable store.volume" .Values.store.location -}}
{{- end -}}
{{- end }}

{{/* Where the object store is, for what pulls and pushes models, too */}}
{{- define "avatar.storeEnv" -}}
{{- with .Values.store.endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- with .Values.store.region }}
- {name: AWS_REGION, value: {{ . | quote }}}
{{- end }}
{{- end }}

{{/* Access to it */}}
{{- define "avatar.storeSecrets" -}}
{{- with .Values.store.accessSecret }}{{ list . | toJson }}{{ else }}[]{{ end -}}
{{- end }}

{{- define "avatar.modelsClaim" -}}
{{- default (printf "%s-models" (include "avatar.name" .)) .Values.models.volume.existingClaim -}}
{{- end }}

{{/* A volume with a key that signs models, or checks them: a value such as models.store.verifyKeySecret */}}
{{- define "avatar.modelKey" -}}
- {name: model-key, secret: {secretName: {{ .name }}, items: [{key: {{ .key }}, path: {{ .key }}}], defaultMode: 0440}}
{{- end }}

{{/* An empty folder on the disk of the node: (list NAME SIZE) */}}
{{- define "avatar.folder" -}}
- {name: {{ index . 0 }}, emptyDir: {sizeLimit: {{ index . 1 }}}}
{{- end }}

{{- define "avatar.replicas" -}}
{{- if eq (index . 0).Values.autoscaling.mode "none" }}
replicas: {{ (index . 1).replicas }}
{{- end }}
{{- end }}
