{{/* The worker groups of the Ray cluster: control nodes first, then each pool's, in the order of the values, because KubeRay adds groups
     to a running cluster only at the end. Spot goes before on-demand by priority. */}}

{{/* A JSON object in quotes for the shell that starts Ray. Single ones: KubeRay and Ray's autoscaler read the value too, and KubeRay
     takes outer quotes off without undoing what a double-quoted string escapes. */}}
{{- define "longtake.controlResource" -}}
"'{\"longtake_control\": 1}'"
{{- end -}}

{{- define "longtake.workerGroups" -}}
{{- $root := . -}}
{{- with .Values.ray.control }}
{{- if gt (int .replicas) 0 }}
- groupName: control
  replicas: {{ .replicas }}
  minReplicas: {{ .replicas }}
  maxReplicas: {{ .replicas }}
  labels:
    ray.io/market-type: on-demand
  rayStartParams:
    resources: {{ include "longtake.controlResource" . }}
  template:
    {{- include "longtake.rayPod" (dict
        "root" $root "component" "control" "container" "ray-worker" "account" "workers" "place" .
        "image" $root.Values.image "director" true
    ) | nindent 4 }}
{{- end }}
{{- end }}
{{- range $pool := .Values.pools }}
{{- range $worker := $pool.workers }}
{{- include "longtake.workerGroup" (dict "root" $root "pool" $pool "worker" $worker) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* `replicas` is left out: it belongs to the Ray autoscaler. Of a dict with root, pool and worker. */}}
{{- define "longtake.workerGroup" -}}
{{- $root := .root -}}
{{- $pool := .pool -}}
{{- $worker := .worker -}}
{{- $gpus := $worker.gpus | default 0 | int -}}
{{- $labels := dict "ray.io/market-type" (ternary "spot" "on-demand" (default false $worker.spot)) "longtake.dev/pool" $pool.name -}}
{{- with $worker.acceleratorType }}{{ $_ := set $labels "ray.io/accelerator-type" . }}{{ end }}
- groupName: {{ $pool.name }}-{{ $worker.name }}
  minReplicas: {{ $worker.minReplicas | default 0 }}
  maxReplicas: {{ $worker.maxReplicas }}
  priority: {{ ternary $worker.priority (ternary 10 0 (default false $worker.spot)) (hasKey $worker "priority") }}
  {{- with $worker.idleTimeoutSeconds }}
  idleTimeoutSeconds: {{ . }}
  {{- end }}
  labels:
    {{- merge $labels (deepCopy ($worker.labels | default dict)) | toYaml | nindent 4 }}
  rayStartParams: {}
  template:
    {{- include "longtake.rayPod" (dict
        "root" $root "component" "gang" "container" "ray-worker" "account" "workers" "place" $worker
        "image" (ternary $root.Values.gpuImage $root.Values.image (gt $gpus 0))
        "labels" (dict "longtake.dev/pool" $pool.name) "gpus" (ternary $gpus nil (gt $gpus 0))
    ) | nindent 4 }}
{{- end -}}
