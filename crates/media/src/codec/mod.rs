//! Codec configuration records and the headers inside coded pictures and audio frames, one module for each codec.

pub mod aac;
pub mod h264;
