{{- /* The Serve config file: what `services/app.py` builds, and how each deployment scales */ -}}
{{- define "medmax.serveConfig" -}}
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: 8000
grpc_options:
  port: 9000
  grpc_servicer_functions:
    - services.pb.medmax.v1.assistant_pb2_grpc.add_AssistantServicer_to_server
    - services.pb.medmax.v1.tokenizer_pb2_grpc.add_ImageTokenizerServicer_to_server
    - services.pb.medmax.v1.llm_pb2_grpc.add_LanguageModelServicer_to_server
    - services.pb.medmax.v1.decoder_pb2_grpc.add_ImageDecoderServicer_to_server
    - services.pb.inference.grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server
    - grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server
logging_config:
  encoding: JSON
  enable_access_log: false
applications:
  - name: medmax
    route_prefix: /
    import_path: services.app:from_config
    args:
      model_id: {{ .Values.model.id }}
      checkpoint: {{ include "medmax.modelPath" . }}
      {{- with .Values.model.vqgan }}
      vqgan: {{ include "medmax.modelPath" $ }}/{{ . }}
      {{- end }}
      {{- toYaml .Values.settings | nindent 6 }}
    deployments:
      {{- range $name, $service := .Values.services }}
      {{- $ranks := ternary $.Values.settings.tensor_parallel 1 (eq $name "llm") }}
      - name: {{ $name }}
        autoscaling_config:
          min_replicas: {{ $service.minReplicas }}
          max_replicas: {{ $service.maxReplicas }}
          target_ongoing_requests: {{ $service.targetOngoingRequests }}
          upscale_delay_s: {{ $service.upscaleDelaySeconds }}
          downscale_delay_s: {{ $service.downscaleDelaySeconds }}
        max_ongoing_requests: {{ $service.maxOngoingRequests }}
        max_queued_requests: {{ $service.maxQueuedRequests }}
        graceful_shutdown_timeout_s: {{ $.Values.settings.request_timeout_s }}
        ray_actor_options:
          num_cpus: {{ mulf $service.cpus $ranks }}
          num_gpus: {{ mulf $service.gpus $ranks }}
          resources: {group_{{ $service.group }}: 0.001}
      {{- end }}
{{- end }}
