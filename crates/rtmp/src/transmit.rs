//! The outgoing half of either side: messages queued as chunks.

use crate::amf::{self, Value};
use crate::chunk::ChunkWriter;
use crate::error::ErrorKind;
use crate::message::{Message, MessageType, UserControl};
use bytes::{Bytes, BytesMut};

/// Chunk stream of protocol control messages (RTMP 5.4).
const CONTROL: u32 = 2;
/// Chunk stream of commands, as every encoder uses it.
const COMMAND: u32 = 3;

/// The outgoing half of a connection.
#[derive(Debug, Default)]
pub(crate) struct Transmit {
    pub(crate) writer: ChunkWriter,
    pub(crate) out: BytesMut,
}

impl Transmit {
    pub(crate) fn poll(&mut self) -> Option<Bytes> {
        (!self.out.is_empty()).then(|| self.out.split().freeze())
    }

    pub(crate) fn pending(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn set_chunk_bytes(&mut self, bytes: u32) {
        self.writer.set_chunk_bytes(bytes, &mut self.out);
    }

    pub(crate) fn message(&mut self, message: &Message) -> Result<(), ErrorKind> {
        self.writer.write(message, &mut self.out)
    }

    pub(crate) fn control(&mut self, kind: MessageType, payload: Bytes) -> Result<(), ErrorKind> {
        self.message(&Message {
            chunk_stream: CONTROL,
            kind,
            stream: 0,
            timestamp: 0,
            payload: payload.into(),
        })
    }

    pub(crate) fn control_u32(&mut self, kind: MessageType, value: u32) -> Result<(), ErrorKind> {
        self.control(kind, Bytes::copy_from_slice(&value.to_be_bytes()))
    }

    pub(crate) fn user_control(&mut self, event: UserControl) -> Result<(), ErrorKind> {
        self.control(MessageType::USER_CONTROL, event.encode())
    }

    /// Queues a command: name, transaction id, arguments (the command object first).
    pub(crate) fn command(
        &mut self,
        stream: u32,
        name: &str,
        transaction: f64,
        arguments: &[Value],
    ) -> Result<(), ErrorKind> {
        let mut payload = BytesMut::with_capacity(256);
        amf::encode_str(name, &mut payload);
        amf::encode(&[Value::Number(transaction)], &mut payload);
        amf::encode(arguments, &mut payload);
        let kind = MessageType::COMMAND_AMF0;
        self.message(&Message {
            chunk_stream: COMMAND,
            kind,
            stream,
            timestamp: 0,
            payload: payload.freeze().into(),
        })
    }
}

/// Builds the info object of `onStatus`, `_result` and `_error`.
pub(crate) fn status(level: &str, code: &str, description: &str) -> Value {
    Value::Object(vec![
        ("level".to_owned(), level.into()),
        ("code".to_owned(), code.into()),
        ("description".to_owned(), description.into()),
    ])
}
