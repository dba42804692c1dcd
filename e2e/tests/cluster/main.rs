//! The product on a real Kubernetes.
