{{/* farm.yaml, as Serve gets it. It holds no secrets: passwords and keys reach the processes as variables. It is in the
     application's arguments and not in a mounted ConfigMap: a mount changes up to a minute after the RayService, and Serve
     would rebuild the application from the old one. */}}

{{/* Of a dict with `root` and `pool`: one of farm.yaml's pools, as JSON. With a controller, the limits are those of
     the RenderPool, so that changing them disturbs no gang; the farm itself gets the widest. */}}
{{- define "longtake.farmPool" -}}
{{- $pool := .pool -}}
{{- $gpus := index $pool.workers 0 "gpus" | default 0 | int -}}
{{- $own := dict
      "name" $pool.name
      "model" $pool.model
      "gang_shape" ($pool.gangShape | default "1")
      "gpus_per_rank" (ternary 1 0 (gt $gpus 0))
      "spot" ($pool.spotPolicy | default "allow")
      "node_labels" (dict "longtake.dev/pool" $pool.name)
      "min_gangs" 0
      "max_gangs" 2048
      "scaling" ($pool.planner | default dict)
-}}
{{- if not .root.Values.controller.enabled -}}
{{- $_ := set $own "min_gangs" ($pool.minGangs | default 0 | int) -}}
{{- $_ := set $own "max_gangs" ($pool.maxGangs | default 1 | int) -}}
{{- end -}}
{{- with $pool.ranksPerNode }}{{ $_ := set $own "ranks_per_node" (int .) }}{{ end -}}
{{- with $pool.pricePerGpuSecond }}{{ $_ := set $own "price_per_gpu_second" (float64 .) }}{{ end -}}
{{- with $pool.drainSeconds }}{{ $_ := set $own "drain_s" (float64 .) }}{{ end -}}
{{- with $pool.slots }}{{ $_ := set $own "slots" (int .) }}{{ end -}}
{{- toJson $own -}}
{{- end -}}

{{/* All of farm.yaml as JSON. */}}
{{- define "longtake.farm" -}}
{{- $pools := list -}}
{{- range $pool := .Values.pools -}}
{{- $pools = append $pools (include "longtake.farmPool" (dict "root" $ "pool" $pool) | fromJson) -}}
{{- end -}}
{{- $own := dict
      "pools" $pools
      "host" "0.0.0.0"
      "port" 8000
      "metrics_host" "0.0.0.0"
      "metrics_port" 8001
      "store_url" .Values.store.url
      "artifacts_url" .Values.artifacts.url
      "scratch" "/scratch"
      "auth" "on"
-}}
{{- mergeOverwrite $own (deepCopy .Values.farm) | toJson -}}
{{- end -}}

{{/* Of one of farm.yaml's pools: what its gangs depend on, as JSON. Serve replaces all of an application whose arguments change,
     so each pool is an application of its own, with no other arguments. */}}
{{- define "longtake.gangs" -}}
{{- $own := pick . "name" "model" "gang_shape" "gpus_per_rank" "ranks_per_node" "spot" "node_labels" "drain_s" -}}
{{- set $own "scaling" dict | toJson -}}
{{- end -}}

{{/* What Ray Serve runs. The first application's name is that by which the farm's processes find each other. */}}
{{- define "longtake.serveConfig" -}}
{{- $farm := include "longtake.farm" . | fromJson -}}
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: 8000
applications:
  - name: longtake
    import_path: serving.app:build_front
    route_prefix: /
    args:
      {{- toYaml $farm | nindent 6 }}
  {{- range $pool := $farm.pools }}
  - name: pool-{{ $pool.name }}
    import_path: serving.app:build_pool
    route_prefix: null
    args:
      {{- include "longtake.gangs" $pool | fromJson | toYaml | nindent 6 }}
  {{- end }}
{{- end -}}

{{/* Of a pool: the spec of its RenderPool. */}}
{{- define "longtake.renderPoolSpec" -}}
pool: {{ .name }}
model: {{ .model | quote }}
gangShape: {{ .gangShape | default "1" | quote }}
minGangs: {{ .minGangs | default 0 }}
maxGangs: {{ .maxGangs | default 1 }}
scaling: {{ .scaling | default "native" }}
spotPolicy: {{ .spotPolicy | default "allow" }}
{{- with .nodeKind }}
nodeKind:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
