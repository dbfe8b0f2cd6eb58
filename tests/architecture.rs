//! Holds the walls of ARCHITECTURE.md.
