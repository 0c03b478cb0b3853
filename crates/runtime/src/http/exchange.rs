//! The service around an application's: it tells the connection when a handler runs, and answers 408 for a request whose
//! body does not come.

use std::cell::Cell;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_http::body::{BoxBody, EitherBody, MessageBody};
use actix_http::error::PayloadError;
use actix_http::{BoxedPayloadStream, ConnectionType, Payload, Request, Response, StatusCode};
use actix_service::{Service, ServiceFactory};
use bytes::Bytes;
use futures::Stream;
use pin_project_lite::pin_project;

use super::connection::Connection;
use super::progress::BODY_DEADLINE;
use crate::running_time::RunningTimer;

/// Makes an [`Exchange`] for each worker.
pub(super) struct ExchangeFactory<F, B> {
    application: F,
    body: PhantomData<fn() -> B>,
}

impl<F, B> ExchangeFactory<F, B> {
    /// Wraps an application.
    pub(super) fn new(application: F) -> Self {
        Self { application, body: PhantomData }
    }
}

impl<F, B> ServiceFactory<Request> for ExchangeFactory<F, B>
where
    F: ServiceFactory<Request, Config = ()>,
    F::Future: 'static,
    F::Response: Into<Response<B>>,
    B: MessageBody,
{
    type Response = Response<EitherBody<B>>;
    type Error = F::Error;
    type Config = ();
    type Service = Exchange<F::Service, B>;
    type InitError = F::InitError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Service, Self::InitError>>>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let application = self.application.new_service(());
        Box::pin(async move { Ok(Exchange { application: application.await?, body: PhantomData }) })
    }
}

/// The service of one worker.
pub(super) struct Exchange<S, B> {
    application: S,
    body: PhantomData<fn() -> B>,
}

impl<S, B> Service<Request> for Exchange<S, B>
where
    S: Service<Request>,
    S::Response: Into<Response<B>>,
    B: MessageBody,
{
    type Response = Response<EitherBody<B>>;
    type Error = S::Error;
    type Future = ExchangeFuture<S::Future, B>;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.application.poll_ready(context)
    }

    fn call(&self, mut request: Request) -> Self::Future {
        let running = request.conn_data::<Arc<Connection>>().map(Running::begin);
        let body = match request.take_payload() {
            Payload::None => None,
            payload => {
                let ended = Rc::new(Cell::new(false));
                let connection = request.conn_data::<Arc<Connection>>().cloned();
                let watched = WatchedBody { payload, ended: ended.clone(), connection };
                let watched: BoxedPayloadStream = Box::pin(watched);
                request = request.replace_payload(Payload::Stream { payload: watched }).0;
                Some(BodyWait { ended, deadline: RunningTimer::after(BODY_DEADLINE) })
            }
        };
        ExchangeFuture { handler: self.application.call(request), running, body, response: PhantomData }
    }
}

/// Notes on the connection that a handler runs, until it is dropped.
struct Running(Arc<Connection>);

impl Running {
    fn begin(connection: &Arc<Connection>) -> Self {
        connection.begin();
        Self(connection.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct BodyWait {
    ended: Rc<Cell<bool>>,
    deadline: RunningTimer,
}

/// A request's body that notes its end.
struct WatchedBody {
    payload: Payload,
    ended: Rc<Cell<bool>>,
    connection: Option<Arc<Connection>>,
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        // The handler has no use for the rest, which the client still has to send.
        if let Some(connection) = self.connection.take().filter(|_| !self.ended.get()) {
            connection.leave_body();
        }
    }
}

impl Stream for WatchedBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(Pin::new(&mut self.payload).poll_next(context));
        if !matches!(next, Some(Ok(_))) {
            self.ended.set(true);
        }
        Poll::Ready(next)
    }
}

pin_project! {
    /// One request: its handler, and the wait for its body.
    pub(super) struct ExchangeFuture<F, B> {
        #[pin]
        handler: F,
        running: Option<Running>,
        body: Option<BodyWait>,
        response: PhantomData<fn() -> B>,
    }
}

impl<F, B, R, E> Future for ExchangeFuture<F, B>
where
    F: Future<Output = Result<R, E>>,
    R: Into<Response<B>>,
    B: MessageBody,
{
    type Output = Result<Response<EitherBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(answer) = this.handler.poll(context) {
            this.running.take();
            return Poll::Ready(
                answer.map(|response| response.into().map_body(|_, body| EitherBody::left(body))),
            );
        }
        let Some(wait) = this.body else { return Poll::Pending };
        if wait.ended.get() {
            *this.body = None;
            return Poll::Pending;
        }
        ready!(wait.deadline.poll(context));
        this.running.take();
        let mut response =
            Response::with_body(StatusCode::REQUEST_TIMEOUT, BoxBody::new("the body did not come\n"));
        response.head_mut().set_connection_type(ConnectionType::Close);
        Poll::Ready(Ok(response.map_body(|_, body| EitherBody::right(body))))
    }
}
