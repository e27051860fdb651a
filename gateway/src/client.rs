//! `frp-gateway explain` and `frp-gateway status`: questions to a gateway that runs.
//!
//! What is asked and answered is the admin API's ([`crate::admin`]); here it is fetched ([`reach`]) and put into text
//! ([`explain`], [`status`], [`table`]).

pub mod drain;
pub mod explain;
pub mod reach;
pub mod status;
pub mod table;
