//! The client of the API server. Every call has a time limit, because a broken connection would otherwise block its
//! caller forever. A watch has none: it ends by itself when it is idle.
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Body as HttpBody;
use kube::Client;
use kube::client::{Body, ClientBuilder};
use std::task::{Context, Poll};
use std::time::Duration;
use tower::{BoxError, Service};

/// Returns a client of the cluster that this operator runs in, or of the cluster that KUBECONFIG names.
///
/// # Errors
/// There is no configuration of a cluster, or it cannot be read.
pub(crate) async fn client() -> anyhow::Result<Client> {
    let config = kube::Config::infer().await?;
    let layer = tower::layer::layer_fn(|inner| LimitedService { inner, limit: CALL_MAX });
    Ok(ClientBuilder::try_from(config)?.with_layer(&layer).build())
}

/// A service that ends calls that take longer than the limit, including the body of the answer.
struct LimitedService<S> {
    inner: S,
    limit: Duration,
}

impl<S, B> Service<Request<Body>> for LimitedService<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Either<Full<Bytes>, B>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let limit = self.limit;
        let what = format!("{} {}", request.method(), request.uri().path());
        let is_watch = request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "watch=true"));
        let answer = self.inner.call(request);
        if is_watch {
            return async move { Ok(answer.await.map_err(Into::into)?.map(Either::Right)) }.boxed();
        }
        let whole = async move {
            let (head, body) = answer.await.map_err(Into::into)?.into_parts();
            let body = body.collect().await.map_err(Into::into)?.to_bytes();
            Ok(Response::from_parts(head, Either::Left(Full::new(body))))
        };
        async move {
            match tokio::time::timeout(limit, whole).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("{what}: the API server does not answer within {limit:?}").into()),
            }
        }
        .boxed()
    }
}

/// The longest time that a call may take, such as a list of tens of thousands of objects.
const CALL_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::api::WatchParams;
    use std::convert::Infallible;

    #[tokio::test]
    async fn a_call_has_an_end_and_a_watch_has_not() {
        let silent = tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
        let client = Client::new(LimitedService { inner: silent, limit: Duration::from_millis(20) }, "default");
        let maps: Api<ConfigMap> = Api::default_namespaced(client);
        let error = maps.get("a").await.unwrap_err();
        assert!(format!("{error:?}").contains("does not answer within"), "{error:?}");
        let parameters = WatchParams::default();
        let watch = maps.watch(&parameters, "0");
        assert!(tokio::time::timeout(Duration::from_millis(100), watch).await.is_err(), "it waits on");
    }
}
