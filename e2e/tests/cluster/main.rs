//! The product on a real Kubernetes, used as a person would: the chart by helm, resources by kubectl, clients in pods of the cluster.
//!
//! Run by `e2e/test-cluster`, one test at a time; KUBECONFIG says which cluster. [`world`] installs the chart once and gives each test a
//! namespace that goes with it; [`shop`] is a broker with its topology in there; the tests are by subject.

mod brokers;
mod chart;
mod clients;
mod deletion;
mod figures;
mod messages;
mod repair;
mod shop;
mod specs;
mod volumes;
mod world;
