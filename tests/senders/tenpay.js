// npm's tenpay as the sender of v2 notices: one JSON request a line on standard input, one JSON answer a line.
// Signing, XML and decryption are tenpay's own code; this file only calls it.
'use strict';
const Payment = require('tenpay');
const util = require('tenpay/lib/util');

const operations = {
  notice({appid, mchid, key, params, type}) {
    const tenpay = new Payment({appid, mchid, partnerKey: key});
    return util.buildXML({...params, sign: tenpay._getSign(params, type)});
  },
  xml: ({params, root}) => util.buildXML(params, root),
  read: ({appid, mchid, key, kind, body}) =>
    new Payment({appid, mchid, partnerKey: key})._parse(body, 'middleware_' + kind),
};

require('readline').createInterface({input: process.stdin}).on('line', async line => {
  const request = JSON.parse(line);
  let answer;
  try {
    answer = {result: await operations[request.operation](request)};
  } catch (error) {
    answer = {error: error.message};
  }
  process.stdout.write(JSON.stringify(answer) + '\n');
});
