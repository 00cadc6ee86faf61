<?php
// A handler as the vendor's v2 pages show: plain PHP, with one connection a process that is kept open.
declare(strict_types=1);

function reply(string $code, string $message): never
{
    header('Content-Type: text/xml');
    echo "<xml><return_code><![CDATA[$code]]></return_code><return_msg><![CDATA[$message]]></return_msg></xml>";
    exit;
}

/** @return array<string, string> */
function verified(string $body, string $key): array
{
    $xml = simplexml_load_string($body, SimpleXMLElement::class, LIBXML_NOCDATA | LIBXML_NONET);
    if ($xml === false) {
        reply('FAIL', 'xml');
    }
    $fields = array_map('strval', (array) $xml);
    $sign = $fields['sign'] ?? '';
    unset($fields['sign']);
    ksort($fields);
    $pairs = [];
    foreach ($fields as $name => $value) {
        if ($value !== '') {
            $pairs[] = "$name=$value";
        }
    }
    if (!hash_equals(strtoupper(md5(implode('&', $pairs) . "&key=$key")), $sign)) {
        reply('FAIL', 'sign');
    }
    return $fields;
}

/** Records the payment, marks the order as paid and credits the points, once. */
function apply(PDO $database, array $notice): void
{
    $amount = (int) $notice['total_fee'];
    $database->beginTransaction();
    $event = $database->prepare('insert into peer_events (transaction_id, out_trade_no, amount) values (?, ?, ?)
        on conflict do nothing');
    $event->execute([$notice['transaction_id'], $notice['out_trade_no'], $amount]);
    if ($event->rowCount() === 1) {
        $order = $database->prepare("update peer_orders set state = 'paid' where out_trade_no = ? and amount = ?
            returning user_id");
        $order->execute([$notice['out_trade_no'], $amount]);
        $user = $order->fetchColumn();
        if ($user === false) {
            throw new RuntimeException('no such order');
        }
        $points = $database->prepare('insert into peer_points (user_id, balance) values (?, ?)
            on conflict (user_id) do update set balance = peer_points.balance + excluded.balance');
        $points->execute([$user, intdiv($amount, 100)]);
    }
    $database->commit();
}

$notice = verified(file_get_contents('php://input'), trim(file_get_contents($_SERVER['KEY_FILE'])));
if ($_SERVER['MODE'] === 'transaction') {
    apply(new PDO($_SERVER['DATABASE_DSN'], options: [
        PDO::ATTR_PERSISTENT => true, PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
    ]), $notice);
}
reply('SUCCESS', 'OK');
