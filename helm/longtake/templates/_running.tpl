{{/* What an upgrade changes in the RayService without KubeRay carrying it over to what runs, and the patches that do it by hand. The
     rules are KubeRay 1.7's; README.md, "What an upgrade touches", tells them to operators. */}}

{{/* The RayService before this upgrade as JSON. Empty for an installation, and when no cluster is asked (`helm template`). */}}
{{- define "longtake.runningService" -}}
{{- if .Capabilities.APIVersions.Has "ray.io/v1/RayService" -}}
{{- lookup "ray.io/v1" "RayService" .Release.Namespace (include "longtake.fullname" .) | toJson -}}
{{- else -}}
{}
{{- end -}}
{{- end -}}

{{/* JSON patch for the running RayCluster: numbers of nodes and tolerations, which KubeRay leaves out of the hash by which it looks for
     changes. Of a dict with root and running, the RayService before this upgrade. */}}
{{- define "longtake.rayClusterPatch" -}}
{{- $patch := list -}}
{{- $cluster := dig "spec" "rayClusterConfig" dict .running -}}
{{- $wanted := include "longtake.workerGroups" .root | fromYamlArray -}}
{{- range $index, $group := get $cluster "workerGroupSpecs" | default list -}}
{{- range $new := $wanted -}}
{{- if eq $new.groupName $group.groupName -}}
{{- $changes := list -}}
{{- $path := printf "/spec/workerGroupSpecs/%d" $index -}}
{{- range $field := list "minReplicas" "maxReplicas" -}}
{{- if ne (get $new $field | int) (get $group $field | int) -}}
{{- $changes = append $changes (dict "op" "add" "path" (printf "%s/%s" $path $field) "value" (get $new $field | int)) -}}
{{- end -}}
{{- end -}}
{{- $tolerations := dig "template" "spec" "tolerations" list $new -}}
{{- if ne (toJson $tolerations) (dig "template" "spec" "tolerations" list $group | toJson) -}}
{{- $changes = append $changes (dict "op" "add" "path" (printf "%s/template/spec/tolerations" $path) "value" $tolerations) -}}
{{- end -}}
{{- if $changes -}}
{{- $patch = append $patch (dict "op" "test" "path" (printf "%s/groupName" $path) "value" $group.groupName) -}}
{{- $patch = concat $patch $changes -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $head := .root.Values.ray.head.tolerations -}}
{{- if and $cluster (ne (toJson $head) (dig "headGroupSpec" "template" "spec" "tolerations" list $cluster | toJson)) -}}
{{- $patch = append $patch (dict "op" "add" "path" "/spec/headGroupSpec/template/spec/tolerations" "value" $head) -}}
{{- end -}}
{{- toJson $patch -}}
{{- end -}}

{{/* Merge patch for the API's Service: KubeRay updates its spec only when it switches to another RayCluster, and its annotations never.
     Of a dict with root and running. */}}
{{- define "longtake.servicePatch" -}}
{{- $patch := dict -}}
{{- $service := dig "spec" "serveService" dict .running -}}
{{- $type := dig "spec" "type" "ClusterIP" $service -}}
{{- if ne $type .root.Values.service.type -}}
{{- $_ := set $patch "spec" (dict "type" .root.Values.service.type) -}}
{{- end -}}
{{- $annotations := dict -}}
{{- range $key, $_ := dig "metadata" "annotations" dict $service -}}
{{- if not (hasKey $.root.Values.service.annotations $key) }}{{ $_ := set $annotations $key nil }}{{ end -}}
{{- end -}}
{{- range $key, $value := .root.Values.service.annotations -}}
{{- if ne $value (dig "metadata" "annotations" $key "" $service) }}{{ $_ := set $annotations $key $value }}{{ end -}}
{{- end -}}
{{- if $annotations }}{{ $_ := set $patch "metadata" (dict "annotations" $annotations) }}{{ end -}}
{{- toJson $patch -}}
{{- end -}}
