{#- Rendered by Jinja before it is asked; `types` are the negative types that the dataset has columns of, `beside` what
    it has columns of besides (absence, units), which is no negative. -#}
{%- set is_negative = "type not in ('paraphrase', 'absence', 'units')" if beside else "type <> 'paraphrase'" -%}
-- What must hold between pairs, negatives and dataset. Each query returns the offending rows, their id first.
-- An error stops `assemble`; a warning is counted in the manifest. Views: pairs, negatives, dataset (as written).
-- Some warnings group texts by a hash of 64 bits: of ten million texts, two share one by chance once in 400,000 runs.

-- error: pair_id occurs twice in pairs
select pair_id from pairs group by pair_id having count(*) > 1;

-- error: one picture has captions in two splits
select image_key from pairs group by image_key having count(distinct split) > 1;

-- error: copies of one picture are in two splits
select image_group from dataset group by image_group having count(distinct split) > 1;

-- error: caption is empty
select pair_id from pairs where trim(caption) = '';

-- error: negative of an unknown pair
select pair_id from negatives anti join pairs using (pair_id);

-- error: negative of an unknown type
select pair_id from negatives where type not in
({% for type in types %}'{{ type }}', {% endfor %}'paraphrase'{% for kind in beside %}, '{{ kind }}'{% endfor %});

-- error: two accepted negatives of one type for one pair
select pair_id from negatives where status = 'accepted' and {{ is_negative }}
group by pair_id, type having count(*) > 1;

-- error: accepted negative without text
select pair_id from negatives
where status = 'accepted' and (text is null or text = '' or (starts_with(text, ' ') and trim(text) = ''));

-- error: accepted negative equals its caption
select pair_id
from (select pair_id, lower(if(starts_with(text, ' ') or ends_with(text, ' '), trim(text), text)) as said
      from negatives where status = 'accepted')
join (select pair_id, lower(caption) as said from pairs) using (pair_id, said);

-- error: accepted negative is another caption of the same picture
select n.pair_id
from (select pair_id, lower(text) as said from negatives where status = 'accepted' and {{ is_negative }}) n
join (select image_key, lower(caption) as said from pairs) o using (said)
join pairs p on p.pair_id = n.pair_id and p.image_key = o.image_key;

-- error: rejected negative without a reason
select pair_id from negatives where status = 'rejected' and reason is null;

-- error: pair_id occurs twice in dataset
select pair_id from dataset group by pair_id having count(*) > 1;

-- error: text without tokens, or tokens without text, in dataset
select pair_id from dataset where len(caption_tokens) < 2
or (paraphrases is null) <> (paraphrases_tokens is null) or len(paraphrases) <> len(paraphrases_tokens)
{%- for type in types %}
or ({{ type }} is null) <> ({{ type }}_tokens is null)
{%- endfor %}
{%- for kind in beside %}
or ({{ kind }} is null) <> ({{ kind }}_tokens is null)
{%- endfor %}
{%- if 'units' in beside %}
or (units is null) <> (unit_foils_tokens is null) or len(units) <> len(units_tokens)
or len(units) <> len(unit_foils_tokens)
{%- endif %};

-- warning: pair without any accepted negative
select pair_id from pairs anti join
(select distinct pair_id from negatives where status = 'accepted' and {{ is_negative }}) using (pair_id);

-- warning: one text is two negatives of a pair
select pair_id from negatives where status = 'accepted' and {{ is_negative }}
group by pair_id, hash(lower(text)) having count(*) > 1;

-- warning: caption fills CLIP's 77 tokens and may be cut
select pair_id from dataset where len(caption_tokens) >= 77;

-- warning: training pair overlaps with a benchmark
select pair_id from dataset where split = 'train' and len(leaks) > 0;

-- warning: caption shared by different pictures
select min(pair_id) from pairs group by lower(caption) having count(distinct image_key) > 1;

-- warning: one picture under several names
select min(image_key) from pairs group by image_sha256 having count(distinct image_key) > 1;

-- warning: negative text shared by more than twenty pairs
select min(pair_id) from negatives where status = 'accepted' group by hash(text) having count(*) > 20;
