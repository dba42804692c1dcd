//! The reasons why a node refuses to open its storage.
use leveret_replication::GroupsOpenError;

/// The reason why storage was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log could not be opened.
    #[error(transparent)]
    Log(#[from] GroupsOpenError),
    /// The segments of the log were made for smaller messages.
    #[error(
        "message_bytes_max is {wanted}, but the log in this folder was made for messages of at most {most} bytes: \
         lower it, or begin with an empty folder"
    )]
    MessageSize {
        /// The configured size of the largest message in bytes.
        wanted: u64,
        /// The size of the largest message that fits into a segment, in bytes.
        most: u64,
    },
    /// The size of the volume could not be read.
    #[error("the size of the volume of the data folder cannot be read: {0}")]
    VolumeSize(std::io::Error),
    /// The volume is too small for a log that lets publishers in.
    #[error(
        "too little space: the volume has {} MiB, and a log for messages of {} MiB needs {} MiB: give it a larger volume, or \
         begin with an empty folder and a lower message_bytes_max",
        .total >> 20, .message.div_ceil(1 << 20), .needed.div_ceil(1 << 20)
    )]
    VolumeTooSmall {
        /// The size of the volume in bytes.
        total: u64,
        /// The size that is needed in bytes.
        needed: u64,
        /// The configured size of the largest message in bytes.
        message: u64,
    },
    /// The folder of the archive cannot be read.
    #[error("archive: {0}")]
    Archive(std::io::Error),
    /// The file `delivered`, which says how far queues had been delivered, cannot be removed.
    #[error("delivered: {0}")]
    Delivered(std::io::Error),
    /// The file with the node's identity cannot be read or written, or the size of the disk cannot be determined.
    #[error("node: {0}")]
    Identity(std::io::Error),
    /// A peer has data of another cluster, and this node has data too.
    #[error(
        "the node at {address} has data of another cluster, and this node has data of its own: two clusters cannot be \
         joined; empty the data folder of one of the two nodes"
    )]
    ForeignCluster {
        /// The address of the peer.
        address: String,
    },
    /// The file `founders`, which has the nodes that formed the cluster, cannot be read.
    #[error("founders: {0}")]
    Founders(std::io::Error),
}
