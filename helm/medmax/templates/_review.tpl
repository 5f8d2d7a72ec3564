{{- /* Where experts' browsers find the review loop's controller; empty = nowhere */ -}}
{{- define "medmax.reviewUrl" -}}
{{- with .Values.review }}
{{- if .publicUrl }}{{ trimSuffix "/" .publicUrl }}
{{- else if and .enabled $.Values.labelStudio.enabled }}https://{{ $.Values.labelStudio.host }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Its host, where outsiders reach it through an Ingress or a Gateway */ -}}
{{- define "medmax.reviewHost" -}}
{{- $url := include "medmax.reviewUrl" . }}
{{- if and .Values.review.enabled (hasPrefix "https://" $url) }}{{ regexReplaceAll ":[0-9]+$" (urlParse $url).host "" }}{{ end }}
{{- end }}

{{- /* What it serves to outsiders, as a JSON list; Label Studio of this chart calls it inside the cluster */ -}}
{{- define "medmax.reviewPaths" -}}
{{- ternary (list "/labelstudio/pictures") (list "/labelstudio/pictures" "/labelstudio/webhook" "/labelstudio/drafts") .Values.labelStudio.enabled | toJson -}}
{{- end }}

{{- /* Fails where a mapping or list holds a secret: (dict "value" .Values.review.config "path" "review.config") */ -}}
{{- define "medmax.withoutSecrets" -}}
{{- $path := .path }}
{{- if kindIs "map" .value }}
  {{- range $name, $value := .value }}
    {{- if regexMatch "(?i)(^|_)(token|key|secret|password)$" $name }}
      {{- fail (printf "%s.%s: is a secret; give it as a key of the Secret that review.existingSecret names" $path $name) }}
    {{- end }}
    {{- include "medmax.withoutSecrets" (dict "value" $value "path" (printf "%s.%s" $path $name)) }}
  {{- end }}
{{- else if kindIs "slice" .value }}
  {{- range $index, $value := .value }}
    {{- include "medmax.withoutSecrets" (dict "value" $value "path" (printf "%s.%d" $path $index)) }}
  {{- end }}
{{- else if kindIs "string" .value }}
  {{- if regexMatch "://[^/]*@" .value }}
    {{- fail (printf "%s: an address must not hold a user or a password" $path) }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* What the chart itself says to the controller must not stand in the file, where it would count for nothing */ -}}
{{- define "medmax.reviewChecks" -}}
{{- $config := .Values.review.config }}
{{- $studio := default dict $config.labelstudio }}
{{- include "medmax.withoutSecrets" (dict "value" $config "path" "review.config") }}
{{- if hasKey $config "host" }}
  {{- fail "review.config.host: the controller of the chart listens on all addresses of its pod" }}
{{- end }}
{{- if hasKey $config "port" }}
  {{- fail "review.config.port: give review.port instead" }}
{{- end }}
{{- if or (hasKey $studio "public_url") (hasKey $studio "hook_url") }}
  {{- fail "review.config.labelstudio: give review.publicUrl in place of public_url and hook_url" }}
{{- end }}
{{- if and .Values.labelStudio.enabled (hasKey $studio "url") }}
  {{- fail "review.config.labelstudio.url: is the chart's own Label Studio where labelStudio.enabled" }}
{{- end }}
{{- with include "medmax.reviewHost" . }}
  {{- $hosts := list }}
  {{- if $.Values.ingress.enabled }}{{ $hosts = append $hosts $.Values.ingress.grpcHost }}{{ end }}
  {{- if $.Values.gateway.enabled }}{{ $hosts = append $hosts $.Values.gateway.grpcHost }}{{ end }}
  {{- if has . $hosts }}
    {{- fail (printf "review.publicUrl: %q is the host of gRPC" .) }}
  {{- end }}
{{- end }}
{{- end }}
