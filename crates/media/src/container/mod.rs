//! Containers: FLV tag bodies as RTMP carries them, and CMAF (ISO/IEC 23000-19) as players read it.

pub mod cmaf;
pub mod flv;
