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

{{- /* An image: (list $ IMAGE-VALUES NAME). */ -}}
{{- define "leveret.image" -}}
{{- $top := index . 0 }}{{ $image := index . 1 }}{{ $name := index . 2 -}}
{{- if not (or $image.repository $top.Values.registry) }}
{{- fail (printf "\n\nThe value registry is not set: there is no public image of %s. Build both images and push them to a registry that your cluster can pull from:\n\n    make images REGISTRY=registry.example.com/team\n\nand install the chart with --set registry=registry.example.com/team\n" $name) }}
{{- end -}}
{{ $image.repository | default (printf "%s/%s" (trimSuffix "/" $top.Values.registry) $name) }}:{{ $image.tag | default $top.Chart.AppVersion }}
{{- end }}

{{- /* The release that the definitions belong to, if that is another: NAME in NAMESPACE. Empty when they are missing or ours. */ -}}
{{- define "leveret.crds.other" -}}
{{- $crd := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "brokers.leveret.dev" -}}
{{- if $crd }}
{{- $annotations := $crd.metadata.annotations | default dict }}
{{- $name := index $annotations "meta.helm.sh/release-name" | default "" }}
{{- $namespace := index $annotations "meta.helm.sh/release-namespace" | default "" }}
{{- if not $name }}nobody{{ else if or (ne $name .Release.Name) (ne $namespace .Release.Namespace) }}{{ $name }} in namespace {{ $namespace }}{{ end }}
{{- end }}
{{- end }}

{{- /* What the operator may do in a namespace that it looks after. */ -}}
{{- define "leveret.rules" -}}
# The product's own kinds. Finalizers are set by patch; `finalizers` allows owner references that block a deletion.
- apiGroups: [leveret.dev]
  resources: [brokers, exchanges, queues, bindings]
  verbs: [get, list, watch, patch]
- apiGroups: [leveret.dev]
  resources: [brokers/status, exchanges/status, queues/status, bindings/status]
  verbs: [patch]
- apiGroups: [leveret.dev]
  resources: [brokers/finalizers]
  verbs: [update]
# What a Broker consists of. An object that exists and is not controlled by the Broker is never written.
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, update{{ if .Values.growVolumes }}, delete{{ end }}]
# By name, never listed. Update: a password that was edited reaches the pods, a key that was removed is put back.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, update]
- apiGroups: [""]
  resources: [configmaps, services, serviceaccounts]
  verbs: [get, create, update]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, update]
# Volumes are asked to grow.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get{{ if .Values.growVolumes }}, patch{{ end }}]
# Why a pod is not ready: its status, and the events about it.
- apiGroups: [""]
  resources: [pods]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
