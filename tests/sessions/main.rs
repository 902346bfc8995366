//! Real work under the policies.
