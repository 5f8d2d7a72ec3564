{{- /* Name of the Secret with the password: (dict "root" $ "given" .Values.database.bundled "suffix" "-postgresql") */ -}}
{{- define "medmax.postgresqlSecret" -}}
{{- default (printf "%s%s" (include "medmax.fullname" .root) .suffix) .given.existingSecret -}}
{{- end }}

{{- /* A PostgreSQL: (dict "root" $ "given" values "component" "postgresql" "suffix" "-postgresql" "database" "medmax") */ -}}
{{- define "medmax.postgresql" -}}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "medmax.metadata" . | nindent 2 }}
spec:
  clusterIP: None
  selector:
    {{- include "medmax.selector" . | nindent 4 }}
  ports:
    - {name: postgresql, port: 5432, targetPort: postgresql}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "medmax.metadata" . | nindent 2 }}
spec:
  serviceName: {{ include "medmax.fullname" .root }}{{ .suffix }}
  replicas: 1
  selector:
    matchLabels:
      {{- include "medmax.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "medmax.selector" . | nindent 8 }}
      annotations:
        {{- include "medmax.checksum" (dict "root" .root "files" (list "secrets.yaml")) | nindent 8 }}
    spec:
      serviceAccountName: {{ include "medmax.fullname" .root }}-data
      automountServiceAccountToken: false
      {{- include "medmax.pullSecrets" .root | nindent 6 }}
      {{- include "medmax.priority" (dict "root" .root "which" "serving") | nindent 6 }}
      # The image's own user.
      securityContext:
        {{- include "medmax.podSecurity" (dict "user" 999 "group" 999) | nindent 8 }}
      # PostgreSQL ends its sessions and writes a checkpoint.
      terminationGracePeriodSeconds: 120
      containers:
        - name: postgresql
          {{- include "medmax.containerImage" (dict "root" .root "image" .root.Values.image.postgresql) | nindent 10 }}
          env:
            - {name: POSTGRES_USER, value: medmax}
            - {name: POSTGRES_DB, value: {{ .database }}}
            - {name: PGDATA, value: /var/lib/postgresql/data/pgdata}
            - {name: POSTGRES_INITDB_ARGS, value: --data-checksums}
            - name: POSTGRES_PASSWORD
              valueFrom:
                secretKeyRef: {name: {{ include "medmax.postgresqlSecret" . }}, key: password}
          ports:
            - {name: postgresql, containerPort: 5432}
          securityContext:
            {{- include "medmax.containerSecurity" . | nindent 12 }}
          resources:
            {{- toYaml .given.resources | nindent 12 }}
          {{- $ready := list "pg_isready" "--quiet" "--username=medmax" (printf "--dbname=%s" .database) }}
          startupProbe:
            exec: {command: {{ toJson $ready }}}
            periodSeconds: 5
            timeoutSeconds: 3
            failureThreshold: 120
          livenessProbe:
            exec: {command: {{ toJson $ready }}}
            periodSeconds: 15
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            exec: {command: {{ toJson $ready }}}
            periodSeconds: 5
            timeoutSeconds: 3
          lifecycle:
            preStop:
              exec:
                # Fast: sessions are ended, transactions rolled back; the default waits for clients to go.
                command: [/bin/sh, -c, pg_ctl stop --mode=fast --timeout=90]
          volumeMounts:
            - {name: data, mountPath: /var/lib/postgresql/data}
            - {name: socket, mountPath: /var/run/postgresql}
            - {name: scratch, mountPath: /tmp}
            - {name: shared-memory, mountPath: /dev/shm}
      volumes:
        - name: socket
          emptyDir: {sizeLimit: 16Mi}
        - name: scratch
          emptyDir: {sizeLimit: 1Gi}
        - name: shared-memory
          emptyDir: {medium: Memory, sizeLimit: 256Mi}
  volumeClaimTemplates:
    - apiVersion: v1
      kind: PersistentVolumeClaim
      metadata:
        name: data
      spec:
        {{- include "medmax.claimSpec" (dict "accessModes" (list "ReadWriteOnce") "size" .given.size "storageClass" .given.storageClass) | nindent 8 }}
{{- end }}

{{- /* (dict "accessModes" list "size" "1Gi" "storageClass" "") */ -}}
{{- define "medmax.claimSpec" -}}
accessModes: {{ toJson .accessModes }}
{{- with .storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests: {storage: {{ .size }}}
{{- end }}

{{- /* A volume that outlives the release: (dict "root" $ "component" "x" "suffix" "-x" "given" values) */ -}}
{{- define "medmax.claim" -}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- include "medmax.metadata" . | nindent 2 }}
  annotations:
    helm.sh/resource-policy: keep
spec:
  {{- include "medmax.claimSpec" .given | nindent 2 }}
{{- end }}
