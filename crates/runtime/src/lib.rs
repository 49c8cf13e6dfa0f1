//! Containers from bundles: create, start, exec, kill, delete, state.
