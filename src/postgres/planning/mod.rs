//! Plans of restores: what is known of a cluster, and the planner over it.

pub mod locate;
