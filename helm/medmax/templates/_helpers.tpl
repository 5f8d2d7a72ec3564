{{- /* Short enough for the longest suffix and what StatefulSets and KubeRay append */ -}}
{{- define "medmax.fullname" -}}
{{- $own := ternary .Release.Name (printf "%s-medmax" .Release.Name) (contains "medmax" .Release.Name) -}}
{{- default $own .Values.fullnameOverride | trunc 26 | trimSuffix "-" -}}
{{- end }}

{{- /* Labels that select: (dict "root" $ "component" "name") */ -}}
{{- define "medmax.selector" -}}
app.kubernetes.io/part-of: medmax
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "medmax.labels" -}}
app.kubernetes.io/name: medmax
{{ include "medmax.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- /* Name, namespace and labels of an object: (dict "root" $ "component" "name" "suffix" "-name") */ -}}
{{- define "medmax.metadata" -}}
name: {{ include "medmax.fullname" .root }}{{ .suffix }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "medmax.labels" . | nindent 2 }}
{{- end }}

{{- /* (dict "root" $ "image" .Values.image.cpu) */ -}}
{{- define "medmax.image" -}}
{{- with .root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ .image.repository }}{{ with .image.tag }}:{{ . }}{{ end }}{{ with .image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- /* Image and its pull policy, of a container */ -}}
{{- define "medmax.containerImage" -}}
image: {{ include "medmax.image" . }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- end }}

{{- define "medmax.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* (dict "user" 1000 "group" 100) */ -}}
{{- define "medmax.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ int .user }}
runAsGroup: {{ int .group }}
fsGroup: {{ int .group }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "medmax.ourPodSecurity" -}}
{{ include "medmax.podSecurity" (dict "user" .Values.runAsUser "group" .Values.runAsGroup) }}
{{- end }}

{{- define "medmax.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Name of a priority class: (dict "root" $ "which" "serving"); empty = none */ -}}
{{- define "medmax.priorityClass" -}}
{{- $given := index .root.Values.priorityClasses .which -}}
{{- if $given.name }}{{ $given.name }}
{{- else if .root.Values.priorityClasses.create }}{{ include "medmax.fullname" .root }}-{{ .which }}
{{- end }}
{{- end }}

{{- define "medmax.priority" -}}
{{- with include "medmax.priorityClass" . }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- /* (dict "root" $ "component" "name") */ -}}
{{- define "medmax.spread" -}}
{{- if .root.Values.topologySpread }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "medmax.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* What Ray, numba and torch write; everything else is read-only */ -}}
{{- define "medmax.scratchMounts" -}}
- {name: scratch, mountPath: /tmp}
- {name: metrics, mountPath: /var/run/medmax}
{{- end }}

{{- define "medmax.scratchVolumes" -}}
- name: scratch
  emptyDir: {sizeLimit: 16Gi}
- name: metrics
  emptyDir: {sizeLimit: 256Mi}
{{- end }}

{{- /* Settings and keys; secrets by reference alone */ -}}
{{- define "medmax.configEnvironment" -}}
envFrom:
  - configMapRef: {name: {{ include "medmax.fullname" . }}-environment}
env:
  {{- include "medmax.keysEnvironment" . | nindent 2 }}
{{- end }}

{{- /* The same, and the ways to database and object store; `secret`: a further Secret of environment variables */ -}}
{{- define "medmax.environment" -}}
envFrom:
  - configMapRef: {name: {{ include "medmax.fullname" . }}-environment}
  {{- if and (eq .Values.objectStore.kind "s3") .Values.objectStore.existingSecret }}
  - secretRef: {name: {{ .Values.objectStore.existingSecret }}}
  {{- end }}
  {{- with .secret }}
  - secretRef: {name: {{ . }}}
  {{- end }}
env:
  {{- include "medmax.keysEnvironment" . | nindent 2 }}
  {{- include "medmax.databaseEnvironment" . | nindent 2 }}
{{- end }}

{{- define "medmax.keysEnvironment" -}}
- name: MEDMAX_API_KEYS
  valueFrom:
    secretKeyRef: {name: {{ include "medmax.authSecret" . }}, key: api-keys}
{{- end }}

{{- define "medmax.authSecret" -}}
{{- ternary (printf "%s-api-keys" (include "medmax.fullname" .)) .Values.auth.existingSecret (not (empty .Values.auth.apiKeys)) -}}
{{- end }}

{{- define "medmax.databaseEnvironment" -}}
{{- if eq .Values.database.kind "bundled" -}}
- name: DATABASE_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ include "medmax.postgresqlSecret" (dict "root" . "given" .Values.database.bundled "suffix" "-postgresql") }}, key: password}
- name: MEDMAX_DATABASE_URL
  value: postgresql+pg8000://medmax:$(DATABASE_PASSWORD)@{{ include "medmax.fullname" . }}-postgresql:5432/medmax
{{- else -}}
- name: MEDMAX_DATABASE_URL
  valueFrom:
    secretKeyRef: {name: {{ .Values.database.existingSecret }}, key: url}
{{- end }}
{{- end }}

{{- /* Checksum of the objects that a pod reads at start: (dict "root" $ "files" (list "config.yaml")) */ -}}
{{- define "medmax.checksum" -}}
{{- $texts := list -}}
{{- range .files -}}
  {{- $texts = append $texts (include (print $.root.Template.BasePath "/" .) $.root) -}}
{{- end -}}
checksum/config: {{ join "\n" $texts | sha256sum }}
{{- end }}

{{- /* Folder of the checkpoint in the pods */ -}}
{{- define "medmax.modelPath" -}}
{{- if eq .Values.model.source "image" -}}/app/{{ .Values.model.path }}
{{- else if eq .Values.model.source "claim" -}}/models/{{ .Values.model.path }}
{{- else -}}/models/{{ .Values.model.id | replace "/" "-" }}-{{ .Values.model.digest | trunc 12 }}
{{- end }}
{{- end }}

{{- define "medmax.modelClaim" -}}
{{- default (printf "%s-models" (include "medmax.fullname" .)) .Values.model.cache.existingClaim -}}
{{- end }}

{{- define "medmax.pictureClaim" -}}
{{- default (printf "%s-pictures" (include "medmax.fullname" .)) .Values.objectStore.existingClaim -}}
{{- end }}

{{- define "medmax.reviewClaim" -}}
{{- default (printf "%s-review" (include "medmax.fullname" .)) .Values.review.existingClaim -}}
{{- end }}

{{- define "medmax.backupClaim" -}}
{{- default (printf "%s-backups" (include "medmax.fullname" .)) .Values.backup.existingClaim -}}
{{- end }}

{{- /* Names of the groups that a service uses, as a JSON list */ -}}
{{- define "medmax.groups" -}}
{{- $names := list -}}
{{- range $name, $service := .Values.services }}
  {{- if not (hasKey $.Values.groups $service.group) }}
    {{- fail (printf "services.%s.group: %q is none of groups: %s" $name $service.group (keys $.Values.groups | sortAlpha | join ", ")) }}
  {{- end }}
  {{- $names = append $names $service.group }}
{{- end }}
{{- $names | uniq | sortAlpha | toJson -}}
{{- end }}

{{- /* Seconds that a leaving pod may take: other addresses, replacements, then the requests at work */ -}}
{{- define "medmax.leaveSeconds" -}}
{{- add .Values.drain.replacementSeconds .Values.settings.request_timeout_s -}}
{{- end }}

{{- define "medmax.graceSeconds" -}}
{{- add .Values.drain.endpointSeconds (include "medmax.leaveSeconds" . | int) 30 -}}
{{- end }}

{{- /* Every pod of the Ray cluster */ -}}
{{- define "medmax.raySelector" -}}
{{ include "medmax.everyPod" . }}
medmax.io/tier: ray
{{- end }}

{{- define "medmax.everyPod" -}}
app.kubernetes.io/part-of: medmax
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Pods that take requests */ -}}
{{- define "medmax.frontSelector" -}}
{{ include "medmax.everyPod" . }}
medmax.io/front: "true"
{{- end }}
