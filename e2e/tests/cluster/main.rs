//! Tests on a real Kubernetes, used as a person would use it: helm installs the chart, kubectl applies resources, clients
//! run in pods of the cluster.
//!
//! `e2e/test-cluster` runs them, one test at a time, on the cluster of KUBECONFIG. [`world`] installs the chart once and
//! creates a namespace per test, which is deleted with the test; [`shop`] is a broker with its topology in that namespace.
//! The other modules contain the tests, by subject.

mod brokers;
mod chart;
mod clients;
mod deletion;
mod figures;
mod members;
mod messages;
mod repair;
mod shop;
mod specs;
mod traffic;
mod volumes;
mod world;
