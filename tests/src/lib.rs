//! What is tested across crates: the rules of the house, the manifests, the main job end to end.
//!
//! Owns the targets beside this file: `tidy` (floors, files, dependencies) and `kube` (manifests), and the scenarios.
//! Deliberately does not know the inside of a service: every test here goes through files, doors or a process.
