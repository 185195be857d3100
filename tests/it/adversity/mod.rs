//! What people and machines do to a daemon at work, and how all of it ends well.

mod people;
mod plenty;
mod poison;
mod table;
