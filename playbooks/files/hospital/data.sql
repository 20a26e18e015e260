-- Made-up people and visits for the demo hospital: the same on every run, no random(), anchored at a fixed day.
-- About 50,000 rows, made inside the server. Run as hospital_owner after schema.sql, in the same transaction.

-- spread(): a number below size; pick(): one of a list. Always the same for the same number and salt.
CREATE FUNCTION pg_temp.spread(number bigint, salt integer, size integer) RETURNS integer
    LANGUAGE sql IMMUTABLE
    AS $$ SELECT pg_catalog.abs(pg_catalog.hashint8extended(number, salt) % size)::integer $$;
CREATE FUNCTION pg_temp.pick(number bigint, salt integer, list text[]) RETURNS text
    LANGUAGE sql IMMUTABLE
    AS $$ SELECT list[1 + pg_temp.spread(number, salt, pg_catalog.cardinality(list))] $$;

CREATE TEMPORARY TABLE words ON COMMIT DROP AS SELECT
    ARRAY['Amara','Björn','Chiara','Daniel','Elif','Farid','Grace','Hana','Ivan','Joana','Kofi','Lena','Mateo','Nadia',
          'Oskar','Priya','Quentin','Rosa','Samir','Tereza','Uma','Viktor','Wanda','Ximena','Yusuf','Zoë'] AS first_names,
    ARRAY['Abbott','Brandt','Costa','Dvořák','Eriksen','Fischer','García','Haddad','Ionescu','Jansen','Kowalski','Lindqvist',
          'Moreau','Nakamura','Okafor','Petrov','Quinn','Rossi','Silva','Tanaka','Ursu','Vogel','Weber','Xu','Yılmaz',
          'Zimmer','Achterberg','Baptiste','Chowdhury','Delgado','El-Masri','Ferreira','Grünwald'] AS last_names,
    ARRAY['Riverside','Oakfield','Port Alder','Lakemont','Eastbury','Millbrook','Stonebridge','Harrow Bay'] AS cities,
    ARRAY['Public Health Fund','Alder Mutual','Harbour Care','Self-paying'] AS insurers,
    ARRAY['0+','A+','B+','0-','A-','AB+','B-','AB-'] AS blood_types,
    ARRAY['Check-up','Follow-up after surgery','Chest pain','Back pain','Persistent cough','Vaccination','Blood pressure',
          'Skin rash','Headache','Diabetes control','Pregnancy check','Knee pain','Test results','Prescription renewal'] AS reasons,
    ARRAY['Penicillin','Latex','Peanuts','Ibuprofen','Pollen','Bee venom','Iodine','Lactose'] AS substances;

INSERT INTO doctors_department (id, code, name, floor) VALUES
    (1, 'GEN', 'General medicine', 1), (2, 'CAR', 'Cardiology', 3), (3, 'ORT', 'Orthopaedics', 2),
    (4, 'PED', 'Paediatrics', 4), (5, 'NEU', 'Neurology', 5), (6, 'DER', 'Dermatology', 1),
    (7, 'GYN', 'Gynaecology and obstetrics', 4), (8, 'ONC', 'Oncology', 6), (9, 'RAD', 'Radiology', -1),
    (10, 'ER', 'Emergency', 0);

-- 400 people of the staff; the first 60 are doctors. No password can be typed for any of them.
INSERT INTO users_user (id, username, password, first_name, last_name, email, role, is_active, date_joined, last_login)
SELECT n,
       pg_catalog.lower(pg_catalog.format('staff%s', pg_catalog.lpad(n::text, 4, '0'))),
       '!',
       pg_temp.pick(n, 1, first_names),
       pg_temp.pick(n, 2, last_names),
       pg_catalog.format('staff%s@hospital.example', pg_catalog.lpad(n::text, 4, '0')),
       CASE WHEN n <= 60 THEN 'doctor' ELSE pg_temp.pick(n, 3, ARRAY['nurse','nurse','nurse','reception','billing','admin']) END,
       n % 37 <> 0,
       TIMESTAMPTZ '2019-03-01 08:00+00' + n * INTERVAL '31 hours',
       TIMESTAMPTZ '2026-05-29 06:00+00' + pg_temp.spread(n, 4, 600) * INTERVAL '1 minute'
FROM words, pg_catalog.generate_series(1, 400) AS n;

INSERT INTO doctors_doctor (id, user_id, department_id, licence_no, specialty, accepts_new)
SELECT n, n, d.id, pg_catalog.format('MD-%s', 100000 + n * 137), d.name, n % 9 <> 0
FROM pg_catalog.generate_series(1, 60) AS n
JOIN doctors_department AS d ON d.id = 1 + n % 10;

INSERT INTO patients_patient
    (id, mrn, first_name, last_name, birth_date, sex, blood_type, phone, city, insurance, general_practitioner_id, created_at)
SELECT n,
       pg_catalog.format('H%s', pg_catalog.lpad((n * 7 + 1000000)::text, 8, '0')),
       pg_temp.pick(n, 11, first_names),
       pg_temp.pick(n, 12, last_names),
       DATE '1932-01-01' + pg_temp.spread(n, 13, 34000),
       pg_temp.pick(n, 14, ARRAY['f','m','f','m','f','m','f','m','f','m','x']),
       pg_temp.pick(n, 15, blood_types),
       pg_catalog.format('+1-555-%s', pg_catalog.lpad(pg_temp.spread(n, 16, 10000)::text, 4, '0')),
       pg_temp.pick(n, 17, cities),
       pg_temp.pick(n, 18, insurers),
       1 + pg_temp.spread(n, 19, 60),
       TIMESTAMPTZ '2020-01-06 09:00+00' + n * INTERVAL '10 hours'
FROM words, pg_catalog.generate_series(1, 5000) AS n;

INSERT INTO patients_allergy (patient_id, substance, severity)
SELECT n * 4, pg_temp.pick(n, 21, substances), pg_temp.pick(n, 22, ARRAY['mild','mild','moderate','severe'])
FROM words, pg_catalog.generate_series(1, 1200) AS n;

-- 15,000 appointments: each doctor sees 16 patients a day, one every half hour; the last of them lie in the future.
INSERT INTO appointments_appointment (id, patient_id, doctor_id, starts_at, minutes, reason, status, booked_at)
SELECT n + 1,
       1 + pg_temp.spread(n, 31, 5000),
       1 + n % 60,
       day + slot * INTERVAL '30 minutes',
       pg_temp.pick(n, 32, ARRAY['15','20','30','30'])::smallint,
       pg_temp.pick(n, 33, reasons),
       CASE
           WHEN day >= TIMESTAMPTZ '2026-06-01 00:00+00' THEN pg_temp.pick(n, 34, ARRAY['booked','booked','booked','booked','cancelled'])
           ELSE pg_temp.pick(n, 35, ARRAY['done','done','done','done','done','done','done','cancelled','missed'])
       END,
       day - (1 + pg_temp.spread(n, 36, 20)) * INTERVAL '1 day'
FROM words,
     pg_catalog.generate_series(0, 14999) AS n,
     LATERAL (SELECT (n / 60) % 16 AS slot, TIMESTAMPTZ '2026-05-19 08:00+00' + (n / 960) * INTERVAL '1 day' AS day) AS place;

INSERT INTO billing_invoice (id, number, appointment_id, amount, status, issued_on, due_on)
SELECT a.id,
       pg_catalog.format('INV-2026-%s', pg_catalog.lpad(a.id::text, 6, '0')),
       a.id,
       (40 + pg_temp.spread(a.id, 41, 360)) + 0.50,
       pg_temp.pick(a.id, 42, ARRAY['paid','paid','paid','paid','open','overdue']),
       (a.starts_at AT TIME ZONE 'UTC')::date + 1,
       (a.starts_at AT TIME ZONE 'UTC')::date + 31
FROM appointments_appointment AS a
WHERE a.status = 'done';

INSERT INTO billing_payment (invoice_id, amount, method, paid_at)
SELECT i.id, i.amount, pg_temp.pick(i.id, 51, ARRAY['insurance','insurance','card','card','transfer','cash']),
       i.issued_on + (1 + pg_temp.spread(i.id, 52, 25)) * INTERVAL '1 day'
FROM billing_invoice AS i
WHERE i.status = 'paid';

INSERT INTO audit_auditlog (at, user_id, action, object_type, object_id, address)
SELECT TIMESTAMPTZ '2026-05-19 07:00+00' + n * INTERVAL '97 seconds',
       1 + pg_temp.spread(n, 61, 400),
       pg_temp.pick(n, 62, ARRAY['view','view','view','view','update','create','print']),
       pg_temp.pick(n, 63, ARRAY['patient','appointment','invoice']),
       1 + pg_temp.spread(n, 64, 5000),
       pg_catalog.format('192.0.2.%s', 1 + pg_temp.spread(n, 65, 250))::inet
FROM pg_catalog.generate_series(1, 12000) AS n;

-- The numbers given above are taken; the next ones come after them.
DO $numbers$
DECLARE
    name text;
    highest bigint;
BEGIN
    FOREACH name IN ARRAY ARRAY['doctors_department', 'users_user', 'doctors_doctor', 'patients_patient',
                                'appointments_appointment', 'billing_invoice'] LOOP
        EXECUTE pg_catalog.format('SELECT max(id) FROM %I', name) INTO highest;
        PERFORM pg_catalog.setval(pg_catalog.pg_get_serial_sequence(name, 'id'), highest);
    END LOOP;
END
$numbers$;

DROP FUNCTION pg_temp.pick(bigint, integer, text[]);
DROP FUNCTION pg_temp.spread(bigint, integer, integer);
