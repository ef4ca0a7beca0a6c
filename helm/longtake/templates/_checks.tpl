{{/* What the schema cannot say: combinations that make no sense, and changes that cannot be made. Every problem ends the rendering
     with a sentence that says what is allowed. */}}

{{- define "longtake.check" -}}
{{- if not (regexMatch "^[a-z]" (include "longtake.fullname" .)) -}}
{{- fail (printf "fullnameOverride: %s must begin with a small letter; KubeRay asks for it" (include "longtake.fullname" .)) -}}
{{- end -}}
{{- if and (eq .Values.gcs.backend "redis") (not .Values.gcs.redis.address) -}}
{{- fail "gcs.redis.address: is needed for gcs.backend redis; say redis://host:6379, or choose rocksdb or none" -}}
{{- end -}}
{{- if and .Values.controller.enabled (not .Values.adminKey.secret.name) -}}
{{- fail "adminKey.secret.name: is needed for the controller; make a Secret as the README says" -}}
{{- end -}}
{{- if and (eq .Values.weights.volume.type "hostPath") (not .Values.weights.volume.hostPath) -}}
{{- fail "weights.volume.hostPath: is needed for weights.volume.type hostPath" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.host: is needed for an Ingress" -}}
{{- end -}}
{{- if not .Values.controller.enabled -}}
{{- if ne .Values.externalScaling.kind "none" -}}
{{- fail "externalScaling.kind: scales RenderPools, which need controller.enabled" -}}
{{- end -}}
{{- end -}}
{{- include "longtake.checkPools" . -}}
{{- end -}}

{{- define "longtake.checkPools" -}}
{{- $root := . -}}
{{- $names := list -}}
{{- $groups := list "control" "headgroup" -}}
{{- range $index, $pool := .Values.pools -}}
{{- if has $pool.name $names -}}
{{- fail (printf "pools[%d].name: %s is the name of another pool too" $index $pool.name) -}}
{{- end -}}
{{- $names = append $names $pool.name -}}
{{- range $worker := $pool.workers -}}
{{- $group := printf "%s-%s" $pool.name $worker.name -}}
{{- if has $group $groups -}}
{{- fail (printf "pools[%d].workers: there are two groups of the name %s" $index $group) -}}
{{- end -}}
{{- $groups = append $groups $group -}}
{{- end -}}
{{- include "longtake.checkPool" (dict "root" $root "pool" $pool "path" (printf "pools[%d]" $index)) -}}
{{- end -}}
{{- end -}}

{{/* Of a dict with root, pool and path. */}}
{{- define "longtake.checkPool" -}}
{{- $pool := .pool -}}
{{- $min := $pool.minGangs | default 0 | int -}}
{{- $max := $pool.maxGangs | default 1 | int -}}
{{- if gt $min $max -}}
{{- fail (printf "%s.minGangs: is %d and must be at most maxGangs, %d" .path $min $max) -}}
{{- end -}}
{{- $drain := $pool.drainSeconds | default 60 | int -}}
{{- $grace := int .root.Values.ray.terminationGracePeriodSeconds -}}
{{- if gt (add $drain 60) $grace -}}
{{- fail (printf "%s.drainSeconds: is %d, and ray.terminationGracePeriodSeconds, %d, must be at least 60 more: a pod must not be killed before its gang has finished" .path $drain $grace) -}}
{{- end -}}
{{- if and (contains "/" $pool.model) (not (hasPrefix "/" $pool.model)) -}}
{{- $pinned := list -}}
{{- range .root.Values.weights.models }}{{ $pinned = append $pinned .name }}{{ end -}}
{{- if not (has $pool.model $pinned) -}}
{{- fail (printf "%s.model: %s is not among weights.models; models from the hub are pinned there to a revision" .path $pool.model) -}}
{{- end -}}
{{- end -}}
{{- include "longtake.checkWorkers" . -}}
{{- include "longtake.checkRenderPool" . -}}
{{- end -}}

{{/* What a RenderPool can never change. The API server refuses it too, but Helm comes to RenderPools last, when the controller and
     the farm have been changed already. */}}
{{- define "longtake.checkRenderPool" -}}
{{- $release := .root.Release -}}
{{- if and .root.Values.controller.enabled (.root.Capabilities.APIVersions.Has "longtake.dev/v1alpha1/RenderPool") -}}
{{- $name := printf "%s-%s" (include "longtake.fullname" .root) .pool.name -}}
{{- $now := dig "spec" dict (lookup "longtake.dev/v1alpha1" "RenderPool" $release.Namespace $name | toJson | fromJson) -}}
{{- $wanted := include "longtake.renderPoolSpec" .pool | fromYaml -}}
{{- range $field := ternary (list "model" "gangShape" "nodeKind") list (not (empty $now)) -}}
{{- $old := get $now $field | default dict | toJson -}}
{{- $new := get $wanted $field | default dict | toJson -}}
{{- if ne $old $new -}}
{{- fail (printf "%s.%s: is %s, and cannot change from %s while there is a RenderPool %s; give the pool another name, or first run: kubectl -n %s delete renderpool %s" $.path $field $new $old $name $release.Namespace $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "longtake.ranks" -}}
{{- $ranks := 1 -}}
{{- range $part := regexFindAll "(cfg|ulysses|ring)=[0-9]+" . -1 -}}
{{- $ranks = mul $ranks (splitList "=" $part | last | int) -}}
{{- end -}}
{{- $ranks -}}
{{- end -}}

{{- define "longtake.threads" -}}
{{- $threads := 1 -}}
{{- range $part := regexFindAll "threads=[0-9]+" . -1 -}}
{{- $threads = splitList "=" $part | last | int -}}
{{- end -}}
{{- $threads -}}
{{- end -}}

{{/* Whether gangs find room on the pool's nodes: otherwise they would wait forever, and nothing would say why. */}}
{{- define "longtake.checkWorkers" -}}
{{- $pool := .pool -}}
{{- $path := .path -}}
{{- $shape := $pool.gangShape | default "1" -}}
{{- $ranks := include "longtake.ranks" $shape | int -}}
{{- $perNode := min $ranks ($pool.ranksPerNode | default $ranks | int) | int -}}
{{- $cores := mul $perNode (include "longtake.threads" $shape | int) -}}
{{- $gpuPool := gt (index $pool.workers 0 "gpus" | default 0 | int) 0 -}}
{{- $spot := 0 -}}
{{- $onDemand := 0 -}}
{{- range $index, $worker := $pool.workers -}}
{{- $here := printf "%s.workers[%d]" $path $index -}}
{{- $gpus := $worker.gpus | default 0 | int -}}
{{- if ne $gpuPool (gt $gpus 0) -}}
{{- fail (printf "%s.gpus: all groups of a pool have GPUs, or none has" $here) -}}
{{- end -}}
{{- if and $gpuPool (lt $gpus $perNode) -}}
{{- fail (printf "%s.gpus: is %d, and a gang of shape %s needs %d on one node; give it more, or set ranksPerNode" $here $gpus $shape $perNode) -}}
{{- end -}}
{{- if le (int64 $worker.cpu) (int64 $cores) -}}
{{- fail (printf "%s.cpu: is %v, and must be above %d: a core for each rank and thread, and a little for the gang's leader" $here $worker.cpu $cores) -}}
{{- end -}}
{{- if gt ($worker.minReplicas | default 0 | int) (int $worker.maxReplicas) -}}
{{- fail (printf "%s.minReplicas: must be at most maxReplicas, %d" $here (int $worker.maxReplicas)) -}}
{{- end -}}
{{- if default false $worker.spot }}{{ $spot = 1 }}{{ else }}{{ $onDemand = 1 }}{{ end -}}
{{- end -}}
{{- if and (eq $pool.spotPolicy "only") (eq $spot 0) -}}
{{- fail (printf "%s.spotPolicy: is only, and none of its workers is spot" $path) -}}
{{- end -}}
{{- if and (eq $pool.spotPolicy "avoid") (eq $onDemand 0) -}}
{{- fail (printf "%s.spotPolicy: is avoid, and all of its workers are spot" $path) -}}
{{- end -}}
{{- $room := include "longtake.room" $pool | int -}}
{{- if gt ($pool.minGangs | default 0 | int) $room -}}
{{- fail (printf "%s.minGangs: is %d, and its workers have room for %d; raise their maxReplicas" $path (int $pool.minGangs) $room) -}}
{{- end -}}
{{- end -}}

{{/* The most gangs that a pool's workers have room for: by cores (a gang's leader takes a hundredth of one), and by GPUs. */}}
{{- define "longtake.room" -}}
{{- $shape := .gangShape | default "1" -}}
{{- $ranks := include "longtake.ranks" $shape | int -}}
{{- $perNode := min $ranks (.ranksPerNode | default $ranks | int) | int -}}
{{- $cores := mul $perNode (include "longtake.threads" $shape | int) -}}
{{- $nodefuls := 0 -}}
{{- range $worker := .workers -}}
{{- $here := div (mul 100 (int64 $worker.cpu)) (add1 (mul 100 $cores)) -}}
{{- with $worker.gpus }}{{ $here = min $here (div (int .) $perNode) }}{{ end -}}
{{- $nodefuls = add $nodefuls (mul (int $worker.maxReplicas) $here) -}}
{{- end -}}
{{- div (mul $nodefuls $perNode) $ranks -}}
{{- end -}}
