{{/* What the pods of the Ray cluster have in common. All of it is part of the RayService's rayClusterConfig: a change here makes
     KubeRay replace the cluster, so nothing here may depend on an unrelated value. */}}

{{- define "longtake.secretVariable" -}}
- name: {{ .variable }}
  valueFrom:
    secretKeyRef:
      name: {{ .name }}
      key: {{ .key }}
{{- end -}}

{{/* The database password, as libpq looks for it: so it is in no URL, and in nothing that Ray keeps. */}}
{{- define "longtake.storeVariables" -}}
{{- with .Values.store.passwordSecret }}
{{- if .name }}
{{ include "longtake.secretVariable" (dict "variable" "PGPASSWORD" "name" .name "key" .key) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "longtake.artifactsVariables" -}}
{{- with .Values.artifacts.credentialsSecret }}
{{- if .name }}
{{ include "longtake.secretVariable" (dict "variable" "AWS_ACCESS_KEY_ID" "name" .name "key" .accessKeyIdKey) }}
{{ include "longtake.secretVariable" (dict "variable" "AWS_SECRET_ACCESS_KEY" "name" .name "key" .secretAccessKeyKey) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Whether models are opened in a pod, as "true" or nothing: on gangs' nodes, and wherever the text encoder and the decoders may run. A
     head without them fetches no weights, and neither does KubeRay's Redis cleanup, a Job made of the head's template that has 300 s.
     Of a dict with root, component and director. */}}
{{- define "longtake.opensModels" -}}
{{- if and .root.Values.weights.models (or (ne .component "head") .director) -}}true{{- end -}}
{{- end -}}

{{/* One thread per process: gangs count their threads themselves. Of a dict with root and models. */}}
{{- define "longtake.rayVariables" -}}
{{- $models := .models -}}
{{- with .root }}
- name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
  value: {{ sub (int .Values.ray.terminationGracePeriodSeconds) 30 | quote }}
- name: RAY_USAGE_STATS_ENABLED
  value: "0"
- name: RAY_SERVE_CONTROL_LOOP_INTERVAL_S
  value: "0.5"
- name: OMP_NUM_THREADS
  value: "1"
- name: MKL_NUM_THREADS
  value: "1"
- name: OPENBLAS_NUM_THREADS
  value: "1"
{{- include "longtake.storeVariables" . }}
{{- include "longtake.artifactsVariables" . }}
{{- if $models }}
- name: HF_HOME
  value: /weights
- name: HF_HUB_OFFLINE
  value: "1"
{{- end }}
{{- with .Values.ray.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The root file system is read-only; only these are written to. KubeRay adds /dev/shm. Of a dict with models. */}}
{{- define "longtake.rayMounts" -}}
- name: tmp
  mountPath: /tmp
- name: home
  mountPath: /home/longtake
- name: scratch
  mountPath: /scratch
{{- if .models }}
- name: weights
  mountPath: /weights
{{- end }}
{{- end -}}

{{/* Of a dict with root and models. */}}
{{- define "longtake.rayVolumes" -}}
{{- $models := .models -}}
{{- with .root -}}
- name: tmp
  emptyDir: {}
- name: home
  emptyDir: {}
- name: scratch
  emptyDir:
    sizeLimit: {{ .Values.ray.scratch.size }}
{{- if $models }}
{{- $volume := .Values.weights.volume }}
- name: weights
  {{- if eq $volume.type "persistentVolumeClaim" }}
  persistentVolumeClaim:
    claimName: {{ include "longtake.weightsClaim" . }}
  {{- else if eq $volume.type "hostPath" }}
  hostPath:
    path: {{ $volume.hostPath }}
    type: Directory
  {{- else }}
  emptyDir:
    sizeLimit: {{ $volume.size }}
  {{- end }}
- name: fetch
  configMap:
    name: {{ include "longtake.fullname" . }}-fetch
{{- end }}
{{- end }}
{{- end -}}

{{/* Fetches pinned weights before Ray starts, so that a gang is ready only with its weights. Of a dict with `root` and `image`. */}}
{{- define "longtake.fetchWeights" -}}
{{- $root := .root -}}
{{- with $root.Values.weights }}
initContainers:
  - name: fetch-weights
    image: {{ include "longtake.image" (dict "root" $root "image" $.image) }}
    imagePullPolicy: {{ $.image.pullPolicy }}
    command: [python, /fetch/fetch_weights.py]
    args:
      {{- range .models }}
      - {{ printf "%s@%s" .name .revision }}
      {{- end }}
    env:
      - name: HF_HOME
        value: /weights
      {{- with .endpoint }}
      - name: HF_ENDPOINT
        value: {{ . }}
      {{- end }}
      {{- if .tokenSecret.name }}
      {{- include "longtake.secretVariable" (dict "variable" "HF_TOKEN" "name" .tokenSecret.name "key" .tokenSecret.key) | nindent 6 }}
      {{- end }}
    resources:
      {{- include "longtake.resources" .resources | nindent 6 }}
    securityContext:
      {{- toYaml $root.Values.containerSecurityContext | nindent 6 }}
    volumeMounts:
      - name: weights
        mountPath: /weights
      - name: tmp
        mountPath: /tmp
      - name: fetch
        mountPath: /fetch
        readOnly: true
{{- end }}
{{- end -}}

{{/* Requests always, memory limited to them, no limit for CPU. */}}
{{- define "longtake.resources" -}}
requests:
  cpu: {{ .cpu | quote }}
  memory: {{ .memory }}
limits:
  memory: {{ .memory }}
{{- end -}}

{{/* A pod of the Ray cluster. Of a dict with root, component, container, account, image, place (the values of a head, control or worker
     group), labels, director (whether the Director may live there) and gpus. */}}
{{- define "longtake.rayPod" -}}
{{- $root := .root -}}
{{- $models := include "longtake.opensModels" . -}}
metadata:
  labels:
    {{- include "longtake.selectorLabels" (dict "root" $root "component" .component) | nindent 4 }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $root.Values.ray.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  # Variables that Kubernetes makes of Services' names, such as LONGTAKE_PORT, would be taken for settings.
  enableServiceLinks: false
  serviceAccountName: {{ include "longtake.fullname" $root }}-{{ .account }}
  # The head's autoscaler asks the API server for pods; no other pod needs it.
  automountServiceAccountToken: {{ eq .account "head" }}
  terminationGracePeriodSeconds: {{ $root.Values.ray.terminationGracePeriodSeconds }}
  securityContext:
    {{- toYaml $root.Values.podSecurityContext | nindent 4 }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- include "longtake.placement" .place | nindent 2 }}
  {{- if $models }}
  {{- include "longtake.fetchWeights" . | nindent 2 }}
  {{- end }}
  containers:
    - name: {{ .container }}
      image: {{ include "longtake.image" (dict "root" $root "image" .image) }}
      imagePullPolicy: {{ .image.pullPolicy }}
      ports:
        {{- if eq .component "head" }}
        - {name: gcs-server, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        - {name: client, containerPort: 10001}
        {{- end }}
        - {name: serve, containerPort: 8000}
        {{- if .director }}
        - {name: director, containerPort: 8001}
        {{- end }}
        - {name: metrics, containerPort: 8080}
      env:
        {{- include "longtake.rayVariables" (dict "root" $root "models" $models) | nindent 8 }}
      resources:
        requests:
          cpu: {{ .place.cpu | quote }}
          memory: {{ .place.memory }}
        limits:
          memory: {{ .place.memory }}
          {{- with .gpus }}
          nvidia.com/gpu: {{ . | quote }}
          {{- end }}
      securityContext:
        {{- toYaml $root.Values.containerSecurityContext | nindent 8 }}
      volumeMounts:
        {{- include "longtake.rayMounts" (dict "models" $models) | nindent 8 }}
  volumes:
    {{- include "longtake.rayVolumes" (dict "root" $root "models" $models) | nindent 4 }}
{{- end -}}

{{- define "longtake.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}
