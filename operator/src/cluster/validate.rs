//! The second step: checks that the Broker can be built as its spec says. Pure.
use super::Defaults;
use super::build::{self, Image};
use super::children::names_taken;
use super::gather::Prerequisites;
use super::problem::Problem;
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec};
use leveret_api::Broker;

/// The parts of a Broker's children that follow from its spec and could be wrong.
pub(super) struct Valid {
    pub(super) config: ConfigMap,
    pub(super) pod: PodSpec,
}

/// Checks that all names are free and that `spec.config` and `spec.podTemplate` can be honoured. `spec.storage.size` is
/// not checked here: a wrong size does not keep anything else from being applied (see `volumes`).
///
/// # Errors
/// The first problem. None of the children is written then.
pub(super) fn validate(
    broker: &Broker,
    gathered: &Prerequisites,
    image: &ImageChoice,
    defaults: &Defaults,
) -> Result<Valid, Problem> {
    if let Some(problem) = names_taken(&gathered.foreign) {
        return Err(problem);
    }
    let image = Image { name: image.name(), pull_secrets: &defaults.pull_secrets };
    Ok(Valid { config: build::config(broker)?, pod: build::pod_spec(broker, image)? })
}

/// The image that the pods of a Broker are to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ImageChoice {
    /// The image that the spec names.
    Own(String),
    /// The operator's default image, which the Broker keeps once it has been ready with it.
    Default(String),
}

impl ImageChoice {
    /// Chooses the image of a Broker. A Broker that names no image and has been ready keeps the image that was the
    /// default then, so that a newer operator restarts no running broker.
    pub(super) fn of(broker: &Broker, default_image: &str) -> Self {
        if let Some(image) = &broker.spec.image {
            return Self::Own(image.clone());
        }
        let kept = broker.status.as_ref().and_then(|status| status.default_image.clone());
        Self::Default(kept.unwrap_or_else(|| default_image.to_owned()))
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Own(image) | Self::Default(image) => image,
        }
    }
}
