{{- define "leveret.name" -}}
{{- if contains "leveret" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-leveret" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "leveret.labels" -}}
app.kubernetes.io/name: leveret-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "leveret.selector" -}}
app.kubernetes.io/name: leveret-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* The reference of an image. Arguments: (list $ IMAGE-VALUES NAME). */ -}}
{{- define "leveret.image" -}}
{{- $top := index . 0 }}{{ $image := index . 1 }}{{ $name := index . 2 -}}
{{- if not (or $image.repository $top.Values.registry) }}
{{- fail (printf "\n\nThe value registry is not set, and there is no public image of %s. Build both images and push them to a registry from which your cluster can pull:\n\n    make images REGISTRY=registry.example.com/team\n\nThen install the chart with --set registry=registry.example.com/team\n" $name) }}
{{- end -}}
{{ $image.repository | default (printf "%s/%s" (trimSuffix "/" $top.Values.registry) $name) }}:{{ $image.tag | default $top.Chart.AppVersion }}
{{- end }}

{{- /* The other release that the custom resource definitions belong to, as "NAME in namespace NAMESPACE"; "nobody" if they belong to
       no release; empty if they do not exist or belong to this release. */ -}}
{{- define "leveret.crds.other" -}}
{{- $crd := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "brokers.leveret.dev" -}}
{{- if $crd }}
{{- $annotations := $crd.metadata.annotations | default dict }}
{{- $name := index $annotations "meta.helm.sh/release-name" | default "" }}
{{- $namespace := index $annotations "meta.helm.sh/release-namespace" | default "" }}
{{- if not $name }}nobody{{ else if or (ne $name .Release.Name) (ne $namespace .Release.Namespace) }}{{ $name }} in namespace {{ $namespace }}{{ end }}
{{- end }}
{{- end }}

{{- /* The operator's rights in a namespace in which it works. */ -}}
{{- define "leveret.rules" -}}
# The kinds of Leveret. Finalizers are set with patch. The rule for brokers/finalizers allows owner references that block the
# deletion of a Broker.
- apiGroups: [leveret.dev]
  resources: [brokers, exchanges, queues, bindings]
  verbs: [get, list, watch, patch]
- apiGroups: [leveret.dev]
  resources: [brokers/status, exchanges/status, queues/status, bindings/status]
  verbs: [patch]
- apiGroups: [leveret.dev]
  resources: [brokers/finalizers]
  verbs: [update]
# The objects that a Broker consists of. The operator never writes an existing object that the Broker does not control.
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, update{{ if .Values.growVolumes }}, delete{{ end }}]
# Secrets are accessed by name and never listed. The operator updates them to bring an edited password to the pods and to
# restore a key that was removed.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, update]
- apiGroups: [""]
  resources: [configmaps, services, serviceaccounts]
  verbs: [get, create, update]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, update]
# The operator deletes the claim of a member that has left the cluster of a Broker, and patches claims to enlarge volumes.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, delete{{ if .Values.growVolumes }}, patch{{ end }}]
# To find out why a pod is not ready, the operator reads its status and the events about it. It restarts pods one after the
# other: it evicts those that serve clients, so that their PodDisruptionBudget is respected, and deletes those that do not.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, delete]
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
