{{- /* What a schema cannot see: values that contradict each other. Every message begins with the value's name */ -}}
{{- define "medmax.checks" -}}
{{- $cuda := eq .Values.settings.device "cuda" }}
{{- range $name, $service := .Values.services }}
  {{- $group := index $.Values.groups $service.group }}
  {{- $ranks := ternary $.Values.settings.tensor_parallel 1 (eq $name "llm") | float64 }}
  {{- $gpus := mulf $service.gpus $ranks }}
  {{- if gt (float64 $service.minReplicas) (float64 $service.maxReplicas) }}
    {{- fail (printf "services.%s.minReplicas: %v is more than maxReplicas, %v" $name $service.minReplicas $service.maxReplicas) }}
  {{- end }}
  {{- $elsewhere := eq "triton" (get $.Values.settings (printf "%s_backend" $name) | default "torch") }}
  {{- if and $cuda (ne $name "gateway") (eq $gpus 0.0) (not $elsewhere) }}
    {{- fail (printf "services.%s.gpus: must be more than 0 where settings.device is cuda" $name) }}
  {{- end }}
  {{- if and (gt $gpus 0.0) (not $cuda) }}
    {{- fail (printf "services.%s.gpus: %v, but settings.device is cpu" $name $service.gpus) }}
  {{- end }}
  {{- if gt $gpus (float64 $group.gpus) }}
    {{- fail (printf "services.%s.gpus: a replica takes %v GPUs, a pod of group %s has %v" $name $gpus $service.group $group.gpus) }}
  {{- end }}
  {{- if and (gt $gpus 1.0) (ne $gpus (floor $gpus)) }}
    {{- fail (printf "services.%s.gpus: %v GPUs a replica; above one they must be whole" $name $gpus) }}
  {{- end }}
{{- end }}
{{- range $name := include "medmax.groups" . | fromJsonArray }}
  {{- $group := index $.Values.groups $name }}
  {{- if gt (float64 $group.minPods) (float64 $group.maxPods) }}
    {{- fail (printf "groups.%s.minPods: %v is more than maxPods, %v" $name $group.minPods $group.maxPods) }}
  {{- end }}
  {{- if and (gt (float64 $group.gpus) 0.0) (ne $group.image "gpu") }}
    {{- fail (printf "groups.%s.image: must be gpu where the group's pods have GPUs" $name) }}
  {{- end }}
{{- end }}
{{- if hasKey .Values.groups "head" }}
  {{- fail "groups.head: is the name of the head's own pods" }}
{{- end }}
{{- with .Values.model }}
  {{- if and (eq .source "claim") (not .cache.existingClaim) }}
    {{- fail "model.cache.existingClaim: name the claim that holds the weights where model.source is claim" }}
  {{- end }}
  {{- if and (eq .source "fetch") (not .uri) }}
    {{- fail "model.uri: give hf://OWNER/NAME@REVISION or s3://BUCKET/PATH where model.source is fetch" }}
  {{- end }}
  {{- if and (eq .source "fetch") (not .digest) }}
    {{- fail "model.digest: give the SHA-256 that `medmax inspect` shows where model.source is fetch" }}
  {{- end }}
{{- end }}
{{- if and (eq .Values.objectStore.kind "s3") (not .Values.objectStore.url) }}
  {{- fail "objectStore.url: give s3://BUCKET/PATH where objectStore.kind is s3" }}
{{- end }}
{{- if and .Values.backup.url (ne .Values.objectStore.kind "s3") }}
  {{- fail "backup.url: wants objectStore.kind s3, whose endpoint and credentials it takes; leave it empty for a volume" }}
{{- end }}
{{- if not (or .Values.auth.apiKeys .Values.auth.existingSecret) }}
  {{- fail "auth.existingSecret: nothing listens without keys; name the Secret that holds them" }}
{{- end }}
{{- if lt (float64 .Values.ray.deletionDelaySeconds) (float64 .Values.settings.request_timeout_s) }}
  {{- fail (printf "ray.deletionDelaySeconds: %v cuts requests off, which may take settings.request_timeout_s, %v" .Values.ray.deletionDelaySeconds .Values.settings.request_timeout_s) }}
{{- end }}
{{- range $name, $port := include "medmax.triton" . | fromJson }}
  {{- if not $port }}
    {{- fail (printf "settings.%s_triton_address: must be host:port where settings.%s_backend is triton" $name $name) }}
  {{- end }}
  {{- with $.Values.networkPolicy }}
    {{- if and .enabled (not (or .triton.namespace .triton.cidrs)) }}
      {{- fail "networkPolicy.triton: give the namespace or the addresses of the Triton server" }}
    {{- end }}
  {{- end }}
{{- end }}
{{- include "medmax.reviewChecks" . }}
{{- end }}

{{- /* Port of the Triton server of each service that has one in place of its own VQ-GAN, as a JSON mapping; 0 = no address */ -}}
{{- define "medmax.triton" -}}
{{- $found := dict -}}
{{- range $name := list "tokenizer" "decoder" -}}
  {{- if eq "triton" (get $.Values.settings (printf "%s_backend" $name) | default "torch") -}}
    {{- $address := get $.Values.settings (printf "%s_triton_address" $name) | default "" -}}
    {{- $port := ternary (regexFind "[0-9]+$" $address) "0" (regexMatch ".:[0-9]{1,5}$" $address) | int -}}
    {{- if and $port $.Values.networkPolicy.triton.port -}}
      {{- $port = int $.Values.networkPolicy.triton.port -}}
    {{- end -}}
    {{- $found = set $found $name $port -}}
  {{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end }}
