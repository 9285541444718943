//! Small files that the proxy wrote and reads again: records of releases, deliveries.
//!
//! The first byte selects one, and says whether the checksum is corrected.

use ground::ids::ReleaseId;
use whit::delivery::Delivery;
use whit::store::{NoRecord, Records};

pub fn run(bytes: &[u8]) {
    let Some((mode, bytes)) = bytes.split_first() else { return };
    match mode % 3 {
        0 => record(bytes),
        1 => record(&whole(bytes)),
        _ => {
            if let Some(delivery) = Delivery::decode(bytes) {
                assert_eq!(Delivery::decode(&delivery.encode()), Some(delivery));
            }
        }
    }
}

fn record(bytes: &[u8]) {
    match Records::decode(bytes) {
        Ok(record) => {
            let again = Records::decode(&Records::encode(&record));
            assert_eq!(again.expect("what was written can be read"), record);
        }
        Err(NoRecord::Damaged | NoRecord::Version(_)) => {}
    }
}

fn whole(body: &[u8]) -> Vec<u8> {
    [body, &blake3::hash(body).as_bytes()[..16]].concat()
}

pub fn seeds() -> Vec<Vec<u8>> {
    let record = Records::encode(&super::wire::record());
    let delivery = Delivery {
        user: Some("ada".parse().expect("a name")),
        asked: 1_800_000_000,
        ..Delivery::new(
            "shop".parse().expect("a name"),
            "web".parse().expect("a name"),
            ReleaseId::of(b"a root"),
            "edge".parse().expect("a name"),
        )
    };
    vec![
        [&[0], record.as_slice()].concat(),
        [&[1], &record[..record.len() - 16]].concat(),
        [&[2], delivery.encode().as_slice()].concat(),
    ]
}
