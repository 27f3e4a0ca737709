use super::*;

fn layout() -> Layout {
    Layout::new("main".parse().unwrap())
}

fn time() -> DateTime<Utc> {
    "2026-01-31T14:05:09.7Z".parse().unwrap()
}

fn id(database: &str, kind: DumpKind) -> DumpId {
    let name = DumpName::new("{database}_{time}", database, time(), kind).unwrap();
    DumpId::new(database, name).unwrap()
}

#[test]
fn names_are_what_operators_expect() {
    let shop = id("shop", DumpKind::Full);
    let key = |id: &DumpId, object: &DumpObject| layout().dump(id, object).to_string();
    assert_eq!(
        key(&shop, &DumpObject::Whole(DumpFormat::Custom)),
        "main/dumps/shop/shop_20260131_140509.dump"
    );
    assert_eq!(
        key(
            &id("shop", DumpKind::Schema),
            &DumpObject::Whole(DumpFormat::Plain)
        ),
        "main/dumps/shop/shop_20260131_140509_schema.sql.zst"
    );
    let other = DumpName::new("alfred_{database}_{time}", "a b", time(), DumpKind::Data).unwrap();
    assert_eq!(other.to_string(), "alfred_a%20b_20260131_140509_data");
    assert_eq!(
        (other.kind(), other.time().to_string()),
        (DumpKind::Data, "2026-01-31 14:05:09 UTC".into())
    );
    assert_eq!(
        layout().latest_dump("shop", DumpKind::Full).as_str(),
        "main/dumps/shop/shop_latest"
    );
}

#[test]
fn every_object_of_every_database_reads_back_from_its_key() {
    let longest = "é\"'/ %\u{1F600}".repeat(6)[..63 - 3].to_string() + "日";
    let databases = [
        "shop",
        "Shop",
        "my.db",
        ".x",
        "..",
        "a/b",
        "%2F",
        "a%",
        "_latest",
        "x_20250101_000000.dump",
        "-",
        &longest,
    ];
    for database in databases {
        for kind in DumpKind::ALL {
            let id = id(database, kind);
            assert_eq!(id.to_string().parse::<DumpId>().unwrap(), id);
            assert_eq!(
                (id.kind(), id.time().timestamp()),
                (kind, time().timestamp())
            );
            let mut objects = vec![
                DumpObject::Globals,
                DumpObject::Manifest,
                DumpObject::Started,
                DumpObject::Proof,
            ];
            objects.push(DumpObject::Member("toc.dat".parse().unwrap()));
            for format in DumpFormat::ALL {
                objects.extend([DumpObject::Sha256(format), DumpObject::Md5(format)]);
                objects
                    .extend((format != DumpFormat::Directory).then_some(DumpObject::Whole(format)));
            }
            for object in objects {
                let key = layout().dump(&id, &object);
                let kind = ObjectKind::Dump(id.clone(), object);
                assert_eq!(layout().parse(&key), Some(kind), "{key}");
            }
            let latest = layout().latest_dump(database, kind);
            let meant = ObjectKind::LatestDump(database.into(), kind);
            assert_eq!(layout().parse(&latest), Some(meant), "{latest}");
        }
        let folder = layout().database_dumps_folder(database);
        assert_eq!(
            layout().parse_database_folder(&folder).as_deref(),
            Some(database)
        );
    }
}

#[test]
fn what_no_dump_has_is_foreign() {
    for path in [
        "shop/shop_20260131_140509",
        "shop/shop_20260131_140509.sql",
        "shop/shop_20260131_140509.dir",
        "shop/shop_20260131_140509.dump.part",
        "shop/shop_20260231_140509.dump",
        "shop/shop.dump",
        "shop/shop_latest2",
        "shop/other_latest",
        "shop/shop_20260131_140509.dir/a/b",
        "s%68op/shop_20260131_140509.dump",
        "s%2/shop_20260131_140509.dump",
        "%FF/shop_20260131_140509.dump",
        "shop_20260131_140509.dump",
    ] {
        let key = Key::new(format!("main/dumps/{path}")).unwrap();
        assert_eq!(layout().parse(&key), None, "{path}");
    }
}

#[test]
fn a_template_must_hold_the_time() {
    for template in [
        "{database}",
        "{time}.{database}x",
        "../{time}",
        "a b {time}",
        ".{time}",
        "{Time}",
    ] {
        let name = DumpName::new(template, "shop", time(), DumpKind::Full);
        assert!(name.is_err(), "{template}");
    }
}
