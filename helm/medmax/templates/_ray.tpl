{{- /* A pod of the Ray cluster: (dict "root" $ "name" "head" or the group's "spec" .Values.ray.head or a group's) */ -}}
{{- define "medmax.rayPod" -}}
{{- $root := .root }}
{{- $values := .root.Values }}
{{- $head := eq .name "head" }}
{{- $front := and (not $head) (eq .name $values.services.gateway.group) }}
{{- $image := ternary $values.image.gpu $values.image.cpu (eq (default "cpu" .spec.image) "gpu") }}
{{- $volumeModel := ne $values.model.source "image" }}
metadata:
  labels:
    {{- include "medmax.selector" (dict "root" .root "component" (printf "ray-%s" .name)) | nindent 4 }}
    medmax.io/tier: ray
    medmax.io/front: {{ $front | quote }}
  annotations:
    {{- include "medmax.checksum" (dict "root" .root "files" (list "config.yaml" "secrets.yaml")) | nindent 4 }}
spec:
  serviceAccountName: {{ include "medmax.fullname" .root }}-{{ ternary "head" "serving" $head }}
  automountServiceAccountToken: {{ and $head $values.ray.autoscaler.enabled }}
  {{- include "medmax.pullSecrets" .root | nindent 2 }}
  {{- include "medmax.priority" (dict "root" .root "which" "serving") | nindent 2 }}
  securityContext:
    {{- include "medmax.ourPodSecurity" .root | nindent 4 }}
  # The exporter tells live processes from dead ones.
  shareProcessNamespace: true
  terminationGracePeriodSeconds: {{ include "medmax.graceSeconds" .root }}
  {{- include "medmax.spread" (dict "root" .root "component" (printf "ray-%s" .name)) | nindent 2 }}
  {{- with .spec.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .spec.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and (not $head) (eq $values.model.source "fetch") }}
  initContainers:
    - name: wait-for-model
      {{- include "medmax.containerImage" (dict "root" .root "image" $image) | nindent 6 }}
      command: [/bin/sh, -c, 'until [ -d {{ include "medmax.modelPath" .root }} ]; do echo "waiting for the fetch job"; sleep 5; done']
      securityContext:
        {{- include "medmax.containerSecurity" . | nindent 8 }}
      resources:
        requests: {cpu: 10m, memory: 16Mi}
        limits: {cpu: 100m, memory: 64Mi}
      volumeMounts:
        - {name: models, mountPath: /models, readOnly: true}
  {{- end }}
  containers:
    - name: {{ ternary "ray-head" "ray-worker" $head }}
      {{- include "medmax.containerImage" (dict "root" .root "image" $image) | nindent 6 }}
      {{- include "medmax.environment" .root | nindent 6 }}
      ports:
        {{- if $head }}
        - {name: gcs-server, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        {{- end }}
        - {name: serve, containerPort: 8000}
        {{- if not $head }}
        - {name: grpc, containerPort: 9000}
        {{- end }}
        - {name: metrics, containerPort: 8080}
      securityContext:
        {{- include "medmax.containerSecurity" . | nindent 8 }}
      resources:
        requests:
          {{- toYaml .spec.resources.requests | nindent 10 }}
          {{- with .spec.gpus }}
          nvidia.com/gpu: {{ . }}
          {{- end }}
        limits:
          {{- toYaml .spec.resources.limits | nindent 10 }}
          {{- with .spec.gpus }}
          nvidia.com/gpu: {{ . }}
          {{- end }}
      startupProbe:
        httpGet: {path: /api/local_raylet_healthz, port: 52365}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: {{ div .spec.startupSeconds 5 }}
      livenessProbe:
        httpGet: {path: /api/local_raylet_healthz, port: 52365}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 12
      readinessProbe:
        {{- if $head }}
        httpGet: {path: /api/gcs_healthz, port: 8265}
        {{- else if $front }}
        # The whole way of a request: this node's proxy, a gateway, every service behind it, the store.
        httpGet: {path: /readyz, port: 8000}
        {{- else }}
        httpGet: {path: /api/local_raylet_healthz, port: 52365}
        {{- end }}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      {{- if not $head }}
      lifecycle:
        preStop:
          exec:
            command:
              - /bin/bash
              - -lc
              - sleep {{ $values.drain.endpointSeconds }}; exec python -m services.deployments.leave --seconds {{ include "medmax.leaveSeconds" .root }}
      {{- end }}
      volumeMounts:
        {{- include "medmax.scratchMounts" . | nindent 8 }}
        - {name: shared-memory, mountPath: /dev/shm}
        {{- if $volumeModel }}
        - {name: models, mountPath: /models, readOnly: true}
        {{- end }}
        {{- if and $front (eq $values.objectStore.kind "volume") }}
        - {name: pictures, mountPath: /pictures}
        {{- end }}
    - name: exporter
      {{- include "medmax.containerImage" (dict "root" .root "image" $image) | nindent 6 }}
      command: [/bin/bash, -lc, exec python -m services.exporter --port {{ $values.monitoring.exporter.port }}]
      {{- include "medmax.configEnvironment" .root | nindent 6 }}
      ports:
        - {name: exporter, containerPort: {{ $values.monitoring.exporter.port }}}
      securityContext:
        {{- include "medmax.containerSecurity" . | nindent 8 }}
      resources:
        {{- toYaml $values.monitoring.exporter.resources | nindent 8 }}
      {{- include "medmax.httpProbes" (dict "path" "/healthz" "port" "exporter" "startupSeconds" 60) | nindent 6 }}
      volumeMounts:
        - {name: exporter-scratch, mountPath: /tmp}
        - {name: metrics, mountPath: /var/run/medmax}
  volumes:
    {{- include "medmax.scratchVolumes" . | nindent 4 }}
    - name: exporter-scratch
      emptyDir: {sizeLimit: 64Mi}
    - name: shared-memory
      emptyDir: {medium: Memory, sizeLimit: {{ mul (int64 .spec.sharedMemoryBytes) 2 }}}
    {{- if $volumeModel }}
    - name: models
      persistentVolumeClaim: {claimName: {{ include "medmax.modelClaim" .root }}, readOnly: true}
    {{- end }}
    {{- if and $front (eq $values.objectStore.kind "volume") }}
    - name: pictures
      persistentVolumeClaim: {claimName: {{ include "medmax.pictureClaim" .root }}}
    {{- end }}
{{- end }}

{{- /* Start-up, liveness and readiness over HTTP: (dict "path" "/healthz" "port" "http" "startupSeconds" 60) */ -}}
{{- define "medmax.httpProbes" -}}
startupProbe:
  httpGet: {path: {{ .path }}, port: {{ .port }}}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: {{ div .startupSeconds 5 }}
livenessProbe:
  httpGet: {path: {{ .path }}, port: {{ .port }}}
  periodSeconds: 15
  timeoutSeconds: 5
  failureThreshold: 4
readinessProbe:
  httpGet: {path: {{ default .path .ready }}, port: {{ .port }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}

{{- /* The RayCluster's spec; k8s/examples has it alone, too */ -}}
{{- define "medmax.rayCluster" -}}
rayVersion: {{ .Values.ray.version | quote }}
authOptions: {mode: token}
enableInTreeAutoscaling: {{ .Values.ray.autoscaler.enabled }}
{{- if .Values.ray.autoscaler.enabled }}
autoscalerOptions:
  version: v2
  idleTimeoutSeconds: {{ .Values.ray.autoscaler.idleSeconds }}
  {{- include "medmax.containerImage" (dict "root" . "image" .Values.image.cpu) | nindent 2 }}
  securityContext:
    {{- include "medmax.containerSecurity" . | nindent 4 }}
  resources:
    {{- toYaml .Values.ray.autoscaler.resources | nindent 4 }}
  volumeMounts:
    - {name: scratch, mountPath: /tmp}
{{- end }}
{{- with .Values.ray.stateStore }}
{{- if .backend }}
gcsFaultToleranceOptions:
  backend: {{ .backend }}
  storage:
    size: {{ .size }}
    {{- with .storageClass }}
    storageClassName: {{ . }}
    {{- end }}
{{- end }}
{{- end }}
headGroupSpec:
  rayStartParams:
    dashboard-host: 0.0.0.0
    num-cpus: "0"
    num-gpus: "0"
    object-store-memory: {{ int64 .Values.ray.head.sharedMemoryBytes | quote }}
  template:
    {{- include "medmax.rayPod" (dict "root" . "name" "head" "spec" .Values.ray.head) | nindent 4 }}
workerGroupSpecs:
  {{- range $name := include "medmax.groups" . | fromJsonArray }}
  {{- $group := index $.Values.groups $name }}
  - groupName: {{ $name }}
    replicas: {{ $group.minPods }}
    minReplicas: {{ $group.minPods }}
    maxReplicas: {{ $group.maxPods }}
    rayStartParams:
      object-store-memory: {{ int64 $group.sharedMemoryBytes | quote }}
      resources: {{ printf `'{"group_%s": 1}'` $name | quote }}
    template:
      {{- include "medmax.rayPod" (dict "root" $ "name" $name "spec" $group) | nindent 6 }}
  {{- end }}
{{- end }}
