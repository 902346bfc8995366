//! Integration tests of enforcer.
