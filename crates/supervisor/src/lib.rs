//! One small process that keeps one container: stdio, log, exit, attach.
