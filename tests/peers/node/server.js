// A handler as tenpay's README shows: express, its middleware, and one process a core by node's own cluster module.
'use strict';
const cluster = require('node:cluster');
const fs = require('node:fs');
const express = require('express');
const { Pool } = require('pg');
const Tenpay = require('tenpay');

const PROCESSES = 2;
const { PORT, MODE, DATABASE_URL, KEY_FILE } = process.env;

// Records the payment, marks the order as paid and credits the points, once.
async function apply(pool, notice) {
  const client = await pool.connect();
  try {
    await client.query('begin');
    const fresh = await client.query({
      name: 'event',
      text: 'insert into peer_events (transaction_id, out_trade_no, amount) values ($1, $2, $3) on conflict do nothing',
      values: [notice.transaction_id, notice.out_trade_no, notice.total_fee],
    });
    if (fresh.rowCount === 1) {
      const paid = await client.query({
        name: 'order',
        text: "update peer_orders set state = 'paid' where out_trade_no = $1 and amount = $2 returning user_id",
        values: [notice.out_trade_no, notice.total_fee],
      });
      if (paid.rowCount !== 1) throw new Error('no such order');
      await client.query({
        name: 'points',
        text: `insert into peer_points (user_id, balance) values ($1, $2)
               on conflict (user_id) do update set balance = peer_points.balance + excluded.balance`,
        values: [paid.rows[0].user_id, Math.floor(notice.total_fee / 100)],
      });
    }
    await client.query('commit');
  } catch (error) {
    await client.query('rollback');
    throw error;
  } finally {
    client.release();
  }
}

function serve() {
  const tenpay = new Tenpay({
    appid: 'wxdev0000000000001',
    mchid: '1900000001',
    partnerKey: fs.readFileSync(KEY_FILE, 'utf8').trim(),
    notify_url: 'http://127.0.0.1/',
  });
  const pool = MODE === 'transaction' ? new Pool({ connectionString: DATABASE_URL, max: 10 }) : null;
  const app = express();
  app.use(express.text({ type: '*/xml' }));
  app.post('/notify', tenpay.middlewareForExpress('pay'), async (request, response) => {
    if (pool) await apply(pool, request.weixin);
    response.reply('');
  });
  app.listen(Number(PORT), '127.0.0.1');
}

if (cluster.isPrimary) {
  for (let i = 0; i < PROCESSES; i += 1) cluster.fork();
  process.on('SIGTERM', () => {
    for (const worker of Object.values(cluster.workers)) worker.process.kill('SIGTERM');
    process.exit(0);
  });
} else {
  serve();
}
