//! A bundle on disk: open, create, check, set, upgrade.
