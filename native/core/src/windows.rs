//! Decaying memory over an actor's behaviour.
